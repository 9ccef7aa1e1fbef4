"""Charts and widgets: views of a timeline."""
