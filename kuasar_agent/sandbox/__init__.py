"""The pod as a whole: namespaces, network, storage, devices, clock."""
