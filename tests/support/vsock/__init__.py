"""A back end and a guest driver for the tests of vsock."""
