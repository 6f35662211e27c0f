"""Containers and their processes: lifecycle, OCI runtime, stdio."""
