"""`PolicyExplorer`: whom an eviction policy throws out."""
