"""`RelocationExplorer`: in which order a disk is copied, and when."""
