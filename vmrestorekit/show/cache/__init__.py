"""`CacheExplorer`: how large the read cache has to be."""
