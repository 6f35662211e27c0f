"""The pod as a whole: namespaces, network, clock, commands."""
