"""`BackupBrowser`: backed-up machines with their drives, folders and files."""
