"""The data agent and the VM host for real: restores and live mounts with QEMU."""
