"""The calling end of a connection; `core` and `stream` have the rules."""

from __future__ import annotations

from collections.abc import Iterable

from .core import ConnectionCore, Event, Events
from .envelope import decode_response, encode_request
from .frames import (
    DATA,
    NO_DATA,
    REMOTE_CLOSED,
    REMOTE_OPEN,
    REQUEST,
    RESPONSE,
    encode,
    oversize_text,
)
from .limits import Limits
from .status import (
    ConnectionClosed,
    ProtocolError,
    ResourceExhausted,
    StatusError,
    StreamClosed,
    StreamFull,
)
from .stream import ENDED, HALF_CLOSED, OPEN, MethodKind, Stream

LAST_ID = 0xFFFFFFFF


class ClientCore(ConnectionCore):
    """The calls to one server."""

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
        """Start a call: take an id and queue the Request, in one step so that ids go out in order.

        `prefix` is `envelope.request_prefix` of the method; a client-streaming or duplex call has
        no payload.

        Raises:
            ResourceExhausted: The request does not fit a frame; nothing is sent.
            ConnectionClosed: All ids of the connection are used.
        """
        if self._next_id > LAST_ID:
            raise ConnectionClosed("ttrpc: stream ids are used up")
        if method.client_streaming:
            flags = REMOTE_OPEN | NO_DATA
        elif method.server_streaming:
            flags = REMOTE_CLOSED
        else:
            flags = 0
        data = encode_request(prefix, payload, timeout_nano, metadata)
        stream = Stream(self._next_id, method, b"")
        self.outbox.append(encode(stream.id, REQUEST, flags, data))
        self._next_id += 2
        self.streams[stream.id] = stream
        return stream

    def send(self, stream: Stream, payload: bytes) -> None:
        """Queue one message.

        Raises:
            StreamClosed: The call has ended, or `close_send` was called.
            ResourceExhausted: The message does not fit a frame.
        """
        if stream.state is not OPEN:
            raise StreamClosed
        self._queue_data(stream, 0, payload)

    def close_send(self, stream: Stream) -> None:
        """Tell the server that no more messages follow; do nothing if it knows or has ended."""
        if stream.state is OPEN:
            self._queue_data(stream, REMOTE_CLOSED | NO_DATA, b"")
            stream.state = HALF_CLOSED

    def abandon(self, stream: Stream, error: StatusError) -> None:
        """End a call for which no caller waits. The protocol has no frame to tell the server."""
        if stream.state is not ENDED:
            self._end(stream, error)
        self.forget(stream)

    def receive_data(self, data: bytes | memoryview) -> Events:
        """Process bytes from the server; frames of unknown streams are ignored."""
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
        """Drop the queued Data of a call that the server has ended.

        Go's servers 1.2.0 to 1.2.7 panic on Data of an ended call (containerd PR #12977). An
        unknown stream may be one that was abandoned with Data still queued.
        """
        if stream is None or stream.method.client_streaming:
            self.outbox.drop(stream_id)

    def _receive_response(self, stream: Stream, data: bytes, events: Events) -> None:
        error: StatusError | None
        try:
            payload, error = decode_response(data)
        except StatusError as failure:
            payload, error = b"", failure
        if error is None and stream.method.server_streaming:
            # An OK Response ends a stream of messages, too. Go's client makes an extra message of
            # an empty one.
            if payload:
                self._deliver(stream, payload, events)
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
            self._end(stream)
            events.append((Event.ENDED, stream))

    def _overflow(self, stream: Stream) -> tuple[Event, Stream]:
        self._end(stream, StreamFull())
        return Event.ENDED, stream
