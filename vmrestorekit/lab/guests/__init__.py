"""Guests to record and restore: described, and built as disk images."""
