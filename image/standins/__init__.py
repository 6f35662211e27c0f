"""Small modules of the guest in place of large ones that are imported but not used."""
