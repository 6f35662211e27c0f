"""Builds the guest image: initrds, a disk, the kernel, a manifest that says what is in them."""
