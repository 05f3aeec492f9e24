"""Plans for where frames belong on disk, their application and undo."""
