"""The pod: namespaces, network, storages, clock, commands in the guest."""
