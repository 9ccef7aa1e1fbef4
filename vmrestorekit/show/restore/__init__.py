"""`Stepper`: one or two restores, event by event."""
