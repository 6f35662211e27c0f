"""Modules of the guest that stand in for large ones which are imported but not used."""
