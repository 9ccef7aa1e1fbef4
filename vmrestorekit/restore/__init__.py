"""The simulated restore: hardware, engine, timeline."""
