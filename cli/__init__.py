"""The `stillwatch` command: asks the database, asks the daemon, prints."""
