"""Both ends of a ttrpc connection as state machines: no sockets, no greenlets, no clock.

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
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from kuasar_agent.ttrpc import envelope
from kuasar_agent.ttrpc.frames import (
    DATA,
    NO_DATA,
    REMOTE_CLOSED,
    REMOTE_OPEN,
    REQUEST,
    RESPONSE,
    FrameReader,
    encode,
    oversize_text,
)
from kuasar_agent.ttrpc.limits import Limits
from kuasar_agent.ttrpc.status import (
    Code,
    ConnectionClosed,
    DeadlineExceeded,
    ProtocolError,
    ResourceExhausted,
    StatusError,
    StreamClosed,
    StreamFull,
)
from kuasar_agent.ttrpc.stream import MESSAGE_OVERHEAD, MethodKind, Outbox, Stream

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage

LAST_ID = 0xFFFFFFFF
MOST_METADATA = 1024


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


class Connection:
    """What both roles share: the stream table, the inboxes and their bounds."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.streams: dict[int, Stream] = {}
        self.outbox = Outbox()
        self.inbox_size = 0
        self._frames = FrameReader()
        self._holding: set[Stream] = set()
        self._full: set[Stream] = set()

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


class ServerConnection(Connection):
    """The serving end. `services` maps service names to methods by their proto names."""

    def __init__(
        self,
        services: Mapping[str, Mapping[str, MethodKind]],
        *,
        strict_ids: bool = True,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(limits or Limits())
        self.draining = False
        """Set to refuse new calls while those in progress end."""
        self._services = services
        self._strict_ids = strict_ids
        self._last_id = 0
        self._unfinished: set[int] = set()

    def receive_data(self, data: bytes | memoryview) -> Events:
        """Take bytes from the client."""
        events: Events = []
        for stream_id, kind, flags, payload in self._frames.feed(data):
            if not stream_id & 1:
                text = "StreamID must be odd for client initiated streams"
                self._refuse(stream_id, Code.INVALID_ARGUMENT, text)
            elif kind == REQUEST:
                if isinstance(payload, int):
                    self._refuse(stream_id, Code.RESOURCE_EXHAUSTED, oversize_text(payload))
                else:
                    self._receive_request(stream_id, payload, events)
            elif kind == DATA:
                self._receive_message(stream_id, flags, payload, events)
        return events

    def reply(self, stream: Stream, payload: bytes) -> None:
        """End a call with its single reply; in vain when the call has ended already.

        Raises ResourceExhausted, and leaves the call open, when the reply does not fit a frame.
        """
        if not stream.ended:
            self.outbox.append(encode(stream.id, RESPONSE, 0, envelope.encode_reply(payload)))
            self._end(stream)

    def fail(self, stream: Stream, error: StatusError) -> None:
        """End a call with an error; in vain when the call has ended already."""
        if not stream.ended:
            self._refuse(stream.id, error.code, error.message, error.details)
            self._end(stream, error)
            self._unfinished.add(stream.id)

    def done(self, stream: Stream) -> None:
        """The handler of a call has ended, or will never run."""
        self.forget(stream)
        self._unfinished.discard(stream.id)

    def send(self, stream: Stream, payload: bytes) -> None:
        """Send one message of a server-streaming call.

        Raises StreamClosed when the call has ended, ResourceExhausted for a message over 4 MiB.
        """
        self._send_data(stream, 0, payload)

    def finish(self, stream: Stream) -> None:
        """End a server-streaming call well; in vain when the call has ended already."""
        if not stream.ended:
            self._send_data(stream, REMOTE_CLOSED | NO_DATA, b"")
            self._end(stream)

    def _refuse(
        self, stream_id: int, code: int, text: str, details: Sequence[AnyMessage] = ()
    ) -> None:
        payload = envelope.encode_status(code, text, details)
        self.outbox.append(encode(stream_id, RESPONSE, 0, payload))

    def _receive_request(self, stream_id: int, payload: bytes, events: Events) -> None:
        if stream_id <= self._last_id and self._is_reused(stream_id):
            text = "StreamID cannot be re-used and must increment"
            self._refuse(stream_id, Code.INVALID_ARGUMENT, text)
            return
        self._last_id = max(self._last_id, stream_id)
        try:
            stream = self._open(stream_id, payload)
        except StatusError as error:
            self._refuse(stream_id, error.code, error.message)
            return
        self.streams[stream_id] = stream
        events.append((Event.OPENED, stream))

    def _is_reused(self, stream_id: int) -> bool:
        return (
            self._strict_ids
            or stream_id == self._last_id
            or stream_id in self.streams
            or stream_id in self._unfinished
        )

    def _open(self, stream_id: int, data: bytes) -> Stream:
        request = envelope.decode_request(data)
        methods = self._services.get(request.service)
        if methods is None:
            raise StatusError.from_code(Code.UNIMPLEMENTED, f"service {request.service}")
        method = methods.get(request.method)
        if method is None:
            raise StatusError.from_code(Code.UNIMPLEMENTED, f"method {request.method}")
        if self.draining:
            raise ConnectionClosed("ttrpc: server closed")
        if len(self.streams) >= self.limits.streams:
            raise ResourceExhausted("ttrpc: too many calls in progress on this connection")
        payload = request.payload
        stream = Stream(stream_id, method, payload)
        if timeout := request.timeout_nano:
            # The caller's time is over: work that changes something must not begin.
            if timeout < 0:
                raise DeadlineExceeded("context deadline exceeded")
            stream.timeout_nano = timeout
        if metadata := request.metadata:
            if len(metadata) > MOST_METADATA:
                raise ResourceExhausted(f"ttrpc: more than {MOST_METADATA} metadata entries")
            stream.metadata = tuple((pair.key, pair.value) for pair in metadata)
        if not method.client_streaming:
            stream.remote_closed = True
        elif payload:
            self._deliver(stream, payload, [])
        return stream

    def _receive_message(
        self, stream_id: int, flags: int, payload: bytes | int, events: Events
    ) -> None:
        stream = self.streams.get(stream_id)
        if isinstance(payload, int):
            self._receive_oversize(stream_id, stream, payload, events)
        elif stream is None:
            self._refuse(stream_id, Code.INVALID_ARGUMENT, "StreamID is no longer active")
        elif not stream.method.client_streaming:
            # The peer would take any answer for the end of a call that is still running.
            return
        elif stream.remote_closed:
            if not flags & NO_DATA:
                text = "data handling error: ttrpc: stream closed"
                self._refuse(stream_id, Code.INVALID_ARGUMENT, text)
        else:
            if not flags & NO_DATA:
                self._deliver(stream, payload, events)
            if flags & REMOTE_CLOSED:
                stream.remote_closed = True
                events.append((Event.CHANGED, stream))

    def _receive_oversize(
        self, stream_id: int, stream: Stream | None, length: int, events: Events
    ) -> None:
        error = ResourceExhausted(oversize_text(length))
        if stream is None:
            self._refuse(stream_id, error.code, error.message)
        elif stream.method.client_streaming:
            self.fail(stream, error)
            events.append((Event.FAILED, stream))

    def _overflow(self, stream: Stream) -> tuple[Event, Stream]:
        error = StreamFull()
        if not stream.ended:
            text = f"data handling error: {error.message}"
            self._refuse(stream.id, Code.INVALID_ARGUMENT, text)
        self._end(stream, error)
        self._unfinished.add(stream.id)
        return Event.FAILED, stream


class ClientConnection(Connection):
    """The calling end."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits or Limits())
        self._next_id = 1

    def open(
        self,
        method: MethodKind,
        prefix: bytes,
        payload: bytes = b"",
        *,
        timeout_nano: int = 0,
        metadata: Iterable[tuple[str, str]] = (),
    ) -> Stream:
        """Start a call; the id is taken and the Request queued in one step, so ids go out in order.

        `prefix` is `envelope.request_prefix` of the method; a client-streaming call has no
        payload. Raises ResourceExhausted, with nothing sent, when the request does not fit a
        frame, and ConnectionClosed when no id is left.
        """
        if self._next_id > LAST_ID:
            raise ConnectionClosed("ttrpc: stream ids are used up")
        if method.client_streaming:
            flags = REMOTE_OPEN | NO_DATA
        elif method.server_streaming:
            flags = REMOTE_CLOSED
        else:
            flags = 0
        data = envelope.encode_request(prefix, payload, timeout_nano, metadata)
        stream = Stream(self._next_id, method, b"")
        self.outbox.append(encode(stream.id, REQUEST, flags, data))
        self._next_id += 2
        self.streams[stream.id] = stream
        stream.local_closed = not method.client_streaming
        return stream

    def send(self, stream: Stream, payload: bytes) -> None:
        """Send one message.

        Raises the call's error or StreamClosed when the call or our side of it has ended, and
        ResourceExhausted for a message over 4 MiB.
        """
        self._send_data(stream, 0, payload)

    def close_send(self, stream: Stream) -> None:
        """Say that no more messages follow; once said, or once the call has ended, nothing."""
        if not stream.local_closed:
            self._send_data(stream, REMOTE_CLOSED | NO_DATA, b"")
            stream.local_closed = True

    def abandon(self, stream: Stream, error: StatusError) -> None:
        """Nobody waits for this call any more. The protocol has no frame to say so."""
        if not stream.ended:
            self._end(stream, error)
        self.forget(stream)

    def receive_data(self, data: bytes | memoryview) -> Events:
        """Take bytes from the server. Frames for unknown streams are ignored."""
        events: Events = []
        for stream_id, kind, flags, payload in self._frames.feed(data):
            if kind not in (RESPONSE, DATA):
                continue
            stream = self.streams.get(stream_id)
            if (kind == RESPONSE or flags & REMOTE_CLOSED) and self.outbox.size:
                self._withhold(stream_id, stream)
            if stream is None:
                continue
            if isinstance(payload, int):
                self._end(stream, ResourceExhausted(oversize_text(payload)))
                events.append((Event.ENDED, stream))
            elif kind == RESPONSE:
                self._receive_response(stream, payload, events)
                events.append((Event.ENDED, stream))
            else:
                self._receive_message(stream, flags, payload, events)
        return events

    def _withhold(self, stream_id: int, stream: Stream | None) -> None:
        """Go servers before 1.2.8 die of Data on a call that they have ended: drop what is queued.

        An unknown stream may be one that was abandoned with Data still unsent.
        """
        if stream is None or stream.method.client_streaming:
            self.outbox.drop(stream_id)

    def _receive_response(self, stream: Stream, data: bytes, events: Events) -> None:
        error: StatusError | None
        try:
            payload, error = envelope.decode_response(data)
        except StatusError as failure:
            payload, error = b"", failure
        if error is None and stream.method.server_streaming:
            # An OK Response ends a stream of messages, too; an empty one is not a message.
            if payload:
                self._deliver(stream, payload, events)
            stream.remote_closed = True
        else:
            stream.payload = payload
        self._end(stream, error)

    def _receive_message(self, stream: Stream, flags: int, payload: bytes, events: Events) -> None:
        if not stream.method.server_streaming:
            text = "received data from non-streaming server: protocol error"
            self._end(stream, ProtocolError(text))
            events.append((Event.ENDED, stream))
            return
        if not flags & NO_DATA:
            self._deliver(stream, payload, events)
        if flags & REMOTE_CLOSED:
            stream.remote_closed = True
            self._end(stream)
            events.append((Event.ENDED, stream))

    def _overflow(self, stream: Stream) -> tuple[Event, Stream]:
        self._end(stream, StreamFull())
        return Event.ENDED, stream
