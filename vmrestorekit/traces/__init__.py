"""Recorded reads and writes: schema, corpus."""
