"""Small wrappers of kernel interfaces, one mechanism per module."""
