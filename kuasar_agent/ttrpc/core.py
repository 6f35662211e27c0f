"""A ttrpc connection as a state machine, without sockets, greenlets or a clock.

This module has the part that both ends share; `server_core` and `client_core` are the two ends.
`stream` has the states of a call and the rules for frames.

Bytes from the peer go into `receive_data`, which returns events. Frames to be sent collect in
`outbox`: the answers to bad input, and the frames that the methods below queue. A core never raises
for anything that the peer sent.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from .frames import DATA, FrameReader, encode
from .limits import Limits
from .outbox import Outbox
from .status import ConnectionClosed, StatusError
from .stream import ENDED, MESSAGE_OVERHEAD, Stream


class Event(Enum):
    """The kind of a change to the stream that is reported beside it."""

    OPENED = auto()
    """Server: a call came in; its method, payload, timeout and metadata are set."""
    CHANGED = auto()
    """A message or the end of messages can be received."""
    FAILED = auto()
    """Server: the call has ended on the wire; the result of its handler will be discarded."""
    ENDED = auto()
    """Client: the reply, the end of the messages or the error has arrived."""


Events = list[tuple[Event, Stream]]


class ConnectionCore:
    """The stream table of a connection, and the inboxes with their bounds."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.streams: dict[int, Stream] = {}
        """Calls that have not ended, by id."""
        self.outbox = Outbox()
        self.inbox_size = 0
        """Bytes of received messages that were not taken, with MESSAGE_OVERHEAD each."""
        self._frames = FrameReader()
        self._holding: set[Stream] = set()
        self._full: set[Stream] = set()

    def receive_data(self, data: bytes | memoryview) -> Events:
        """Process bytes from the peer; the caller may reuse `data` afterwards."""
        raise NotImplementedError

    @property
    def congested(self) -> bool:
        """True while too many messages wait to be taken; until then, do not read the socket."""
        return bool(self._full) or self.inbox_size >= self.limits.connection_inbox

    @property
    def partial_size(self) -> int:
        """Bytes kept of a frame that has not arrived completely."""
        return self._frames.partial_size

    def take(self, stream: Stream) -> bytes | None:
        """Remove and return the next message of a stream; None if there is none yet."""
        if not stream.inbox:
            return None
        message = stream.inbox.popleft()
        size = len(message) + MESSAGE_OVERHEAD
        stream.inbox_size -= size
        stream.taken += 1
        self.inbox_size -= size
        if not stream.inbox:
            self._holding.discard(stream)
        if self._full and stream.inbox_size < self.limits.stream_inbox:
            self._full.discard(stream)
        return message

    def forget(self, stream: Stream) -> None:
        """Drop the messages of a stream that will not be taken any more."""
        if not stream.inbox:
            return
        self.inbox_size -= stream.inbox_size
        stream.inbox_size = 0
        stream.inbox = None
        self._holding.discard(stream)
        self._full.discard(stream)

    def expire(self) -> Events:
        """Fail the streams that cause the congestion; call it after each `limits.stall` of it.

        These are the full streams and, if the connection as a whole is full, the stream that holds
        most. A stream fails only if no message was taken from it since the previous call.
        """
        suspects = set(self._full)
        if self.inbox_size >= self.limits.connection_inbox:
            suspects.add(max(self._holding, key=lambda stream: stream.inbox_size))
        events: Events = []
        for stream in suspects:
            if stream.taken != stream.stall_mark:
                stream.stall_mark = stream.taken
            else:
                self.forget(stream)
                events.append(self._overflow(stream))
        return events

    def closed(self) -> list[Stream]:
        """End every call with ConnectionClosed, because the socket is gone; return these calls."""
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.state = ENDED
            stream.error = ConnectionClosed()
        return streams

    def _overflow(self, stream: Stream) -> tuple[Event, Stream]:
        raise NotImplementedError

    def _deliver(self, stream: Stream, message: bytes, events: Events) -> None:
        if stream.inbox is None:
            stream.inbox = deque()
        if not stream.inbox:
            # One event for all messages: the receiver takes until the inbox is empty.
            self._holding.add(stream)
            events.append((Event.CHANGED, stream))
        size = len(message) + MESSAGE_OVERHEAD
        stream.inbox.append(message)
        stream.inbox_size += size
        self.inbox_size += size
        if stream.inbox_size >= self.limits.stream_inbox:
            self._full.add(stream)

    def _end(self, stream: Stream, error: StatusError | None = None) -> None:
        stream.state = ENDED
        stream.error = error
        self.streams.pop(stream.id, None)

    def _queue_data(self, stream: Stream, flags: int, payload: bytes) -> None:
        self.outbox.append(encode(stream.id, DATA, flags, payload))
