"""The same guest booted in several ways, and what the model says of it."""
