"""The synchronous part of start-up: from the bare kernel to a system that can serve."""
