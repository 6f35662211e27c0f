"""A ttrpc connection as a state machine: no sockets, no greenlets, no clock.

What both ends share is here; `server_connection` and `client_connection` are the two.

Bytes from the peer go into `receive_data`, which returns events. What is to be sent collects in
`outbox`, both the answers to bad input and what the methods below queue. A connection never
raises for anything that the peer sent.

A call on either end:

                      Request                     Response, Data RC|ND, failure
        (no entry) --------------> open ------------------------------------------> ended
                                    | ^
                   Data RC received | | Data without RC
                                    v |
                               half-closed (the client has sent all; the server may go on)

Flags: RC (REMOTE_CLOSED) says that the sender of the frame sends nothing more; RO (REMOTE_OPEN)
on a Request that Data follows; ND (NO_DATA) that the frame carries no message, as against an
empty one. The rules, for both roles unless said otherwise:

- What kind a call is comes from the method, on the server as on the client; a Request's flags
  are ignored, undefined ones included.
- A Request's payload is the first message when it is not empty, or when the method takes a
  single message. An empty payload of a client-streaming method is no message.
- Data without ND is a message even when it is empty. ND is obeyed: a payload beside it is
  ignored. RC after it ends the peer's messages; RC with a message is taken, never sent.
- The server ends a server-streaming call with Data RC|ND, every other and every failed one with
  a Response. Either ends the whole call, whether or not the client has closed its side.
- A client opens a client-streaming call with RO|ND: the one form that every server takes.

The words in the answers are those of the Go server, because clients compare them.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from .frames import DATA, FrameReader, encode
from .limits import Limits
from .status import ConnectionClosed, StatusError, StreamClosed
from .stream import MESSAGE_OVERHEAD, Outbox, Stream


class Event(Enum):
    """What happened to the stream beside it."""

    OPENED = auto()
    """Server: a call came in; its method, payload, timeout and metadata are set."""
    CHANGED = auto()
    """A message or the end of messages can be received."""
    FAILED = auto()
    """Server: the call is over on the wire; whatever its handler still does is in vain."""
    ENDED = auto()
    """Client: the reply, the end or the error is there."""


Events = list[tuple[Event, Stream]]


class ConnectionCore:
    """What both roles share: the stream table, the inboxes and their bounds."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.streams: dict[int, Stream] = {}
        self.outbox = Outbox()
        self.inbox_size = 0
        self._frames = FrameReader()
        self._holding: set[Stream] = set()
        self._full: set[Stream] = set()

    def receive_data(self, data: bytes | memoryview) -> Events:
        """Take bytes from the peer; `data` may be reused afterwards."""
        raise NotImplementedError

    @property
    def congested(self) -> bool:
        """Too much is waiting to be taken: stop reading until it is not."""
        return bool(self._full) or self.inbox_size >= self.limits.connection_inbox

    def take(self, stream: Stream) -> bytes | None:
        """The next message of a stream, or None when there is none now."""
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
        """Drop what a stream has received: nobody will take it."""
        if not stream.inbox:
            return
        self.inbox_size -= stream.inbox_size
        stream.inbox_size = 0
        stream.inbox = None
        self._holding.discard(stream)
        self._full.discard(stream)

    def expire(self) -> Events:
        """Fail the streams in the way, called after each `limits.stall` of congestion.

        A stream is in the way when it is full (or, if the connection as a whole is, the one that
        holds most) and nobody has taken a message of it since the last call.
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
        """The transport is gone: every call in progress ends with ConnectionClosed."""
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.ended = True
            stream.local_closed = True
            stream.error = ConnectionClosed()
        return streams

    def _overflow(self, stream: Stream) -> tuple[Event, Stream]:
        raise NotImplementedError

    def _deliver(self, stream: Stream, message: bytes, events: Events) -> None:
        if stream.inbox is None:
            stream.inbox = deque()
        if not stream.inbox:
            # Whoever waits for messages is told once, and then takes all there are.
            self._holding.add(stream)
            events.append((Event.CHANGED, stream))
        size = len(message) + MESSAGE_OVERHEAD
        stream.inbox.append(message)
        stream.inbox_size += size
        self.inbox_size += size
        if stream.inbox_size >= self.limits.stream_inbox:
            self._full.add(stream)

    def _end(self, stream: Stream, error: StatusError | None = None) -> None:
        stream.ended = True
        stream.local_closed = True
        stream.error = error
        self.streams.pop(stream.id, None)

    def _send_data(self, stream: Stream, flags: int, payload: bytes) -> None:
        if stream.local_closed:
            raise StreamClosed()
        self.outbox.append(encode(stream.id, DATA, flags, payload))
