"""Bounds of a server and of a connection; PROTOCOL.md says what happens at each limit."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Limits"]


class Limits(NamedTuple):
    """Bounds: sizes in bytes, times in seconds. All but the first two are for each connection."""

    handlers: int = 4096
    """Handlers that run in a server, including those that outlive their caller."""
    connections: int = 1024
    """Connections of a server; the next one is closed."""
    streams: int = 2048
    """Calls in progress; the next one is answered with ResourceExhausted."""
    stream_inbox: int = 1 << 20
    """Received messages of one stream; beyond it, reading from the socket pauses."""
    connection_inbox: int = 8 << 20
    """Received messages of all streams together; beyond it, reading from the socket pauses."""
    outbox_wait: int = 1 << 20
    """Unsent frames; beyond it, greenlets that send a message wait."""
    outbox_drop: int = 32 << 20
    """Unsent frames; beyond it, the connection is closed because its peer does not read."""
    stall: float = 0.5
    """A pause of reading; a stream from which no message is taken for so long fails."""
