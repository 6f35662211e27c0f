"""The debug server on vsock port 1025."""
