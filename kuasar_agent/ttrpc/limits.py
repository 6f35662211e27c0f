"""What one connection may hold; PROTOCOL.md says what happens at each limit."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Sizes in bytes, times in seconds."""

    streams: int = 2048
    """Calls in progress on one connection; the next one is answered with 8."""
    stream_inbox: int = 1 << 20
    """Received messages that one stream keeps before reading from the socket pauses."""
    connection_inbox: int = 8 << 20
    """The same for all streams of a connection together."""
    outbox_wait: int = 1 << 20
    """Frames waiting for the socket above which whoever sends a message waits."""
    outbox_drop: int = 32 << 20
    """Frames waiting for the socket above which the peer is given up and disconnected."""
    stall: float = 0.5
    """How long reading pauses for a stream that takes nothing before that stream fails."""
