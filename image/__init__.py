"""The build of the guest image: initrds, a disk, the kernel, and a manifest of their contents."""
