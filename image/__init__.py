"""Builds the guest image: the initrd with the agent as its init, the kernel, a manifest."""
