"""Storages of containers: block devices, shares, tmpfs and binds, a driver for each."""
