"""The error of this library."""

from __future__ import annotations


class HostError(Exception):
    """A microVM that cannot be booted, found or reached.

    The first line of the message says it in full; lines after it are evidence, such as the end of
    the guest's console.
    """
