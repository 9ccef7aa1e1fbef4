"""Analysis: what-if questions over thousands of simulated restores."""
