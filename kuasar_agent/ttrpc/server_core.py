"""The serving end of a connection; `connection` has the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from . import envelope
from .core import ConnectionCore, Event, Events
from .frames import (
    DATA,
    NO_DATA,
    REMOTE_CLOSED,
    REQUEST,
    RESPONSE,
    encode,
    oversize_text,
)
from .limits import Limits
from .status import (
    Code,
    ConnectionClosed,
    DeadlineExceeded,
    ResourceExhausted,
    StatusError,
    StreamFull,
)
from .stream import MethodKind, Stream

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage

MOST_METADATA = 1024


class ServerCore(ConnectionCore):
    """`services` maps service names to methods by their proto names."""

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
