"""The media agent for real: source, emulated device, read cache, staging, exports, messages."""
