"""The same for real: guest images, recorder, QEMU host."""
