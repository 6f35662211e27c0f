"""Peers and frames for the tests of ttrpc."""
