"""Standard streams of a process: descriptors, copiers and the transports to the host."""
