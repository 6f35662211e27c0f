"""Kernel interfaces, one mechanism per module. They raise OSError unless they say otherwise."""
