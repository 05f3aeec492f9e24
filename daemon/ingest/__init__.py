"""From a file in the folder to a committed row."""
