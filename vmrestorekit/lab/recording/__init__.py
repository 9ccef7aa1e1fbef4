"""Boots recorded: a machine with its disks served, every request logged."""
