"""Charts and widgets."""
