"""`FirstSetPicker`: what to stage first with a budget."""
