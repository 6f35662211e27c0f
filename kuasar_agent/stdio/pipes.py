"""The size of pipes and FIFOs, and of what is moved through them at once."""

from __future__ import annotations

from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl

CHUNK = 256 * 1024
"""Bytes of a pipe, and of one read: a full one costs one wake-up for four packets of vsock."""


def grow_pipe(fd: int) -> None:
    """Let a pipe hold `CHUNK` bytes; one that may not keeps its size (pipe(7))."""
    with suppress(OSError):
        fcntl(fd, F_SETPIPE_SZ, CHUNK)
