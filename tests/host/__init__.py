"""Tests that need root and a real OCI runtime."""
