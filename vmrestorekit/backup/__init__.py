"""The backup copy: where blocks lie, what is in them."""
