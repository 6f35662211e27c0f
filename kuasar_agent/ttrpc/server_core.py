"""The serving end of a connection; `core` and `stream` have the rules.

The texts of the answers are those of Go's server (server.go), because clients compare them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .core import ConnectionCore, Event, Events
from .envelope import decode_request, encode_reply, encode_status
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
    StreamClosed,
    StreamFull,
)
from .stream import ENDED, HALF_CLOSED, MethodKind, Stream

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage

MOST_METADATA = 1024
"""Entries of metadata in one request. Go's server has no bound."""


class ServerCore(ConnectionCore):
    """The calls of one client."""

    def __init__(
        self,
        services: Mapping[str, Mapping[str, MethodKind]],
        *,
        strict_ids: bool = True,
        limits: Limits | None = None,
    ) -> None:
        """`services` maps full names of services to their methods by their names in the .proto."""
        super().__init__(limits or Limits())
        self.draining = False
        """Set it to refuse new calls while the calls in progress end."""
        self._services = services
        self._strict_ids = strict_ids
        self._last_id = 0
        self._unfinished: set[int] = set()
        """Ids of calls that failed while their handler still runs."""

    def receive_data(self, data: bytes | memoryview) -> Events:
        """Process bytes from the client; the caller may reuse `data` afterwards."""
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
        """End a call with its single reply; do nothing if the call has ended.

        Raises:
            ResourceExhausted: The reply does not fit a frame. The call goes on.
        """
        if stream.state is not ENDED:
            self.outbox.append(encode(stream.id, RESPONSE, 0, encode_reply(payload)))
            self._end(stream)

    def fail(self, stream: Stream, error: StatusError) -> None:
        """End a call with an error; do nothing if the call has ended.

        A call whose end was sent has succeeded for its client, which gets no error any more.
        """
        if stream.state is not ENDED:
            if not stream.end_sent:
                self._refuse(stream.id, error.code, error.message, error.details)
            self._end(stream, error)
            self._unfinished.add(stream.id)

    def done(self, stream: Stream) -> None:
        """Release what is kept for a call's handler, which has ended or will not run."""
        self.forget(stream)
        self._unfinished.discard(stream.id)

    def send(self, stream: Stream, payload: bytes) -> None:
        """Queue one message of a server-streaming or duplex call.

        Raises:
            StreamClosed: The call has ended.
            ResourceExhausted: The message does not fit a frame.
        """
        if stream.state is ENDED or stream.end_sent:
            raise StreamClosed
        self._queue_data(stream, 0, payload)

    def close_send(self, stream: Stream) -> None:
        """Send the successful end of a duplex call; the client's messages still arrive.

        Do nothing if the call has ended or the end was sent.
        """
        if stream.state is not ENDED and not stream.end_sent:
            self._queue_data(stream, REMOTE_CLOSED | NO_DATA, b"")
            stream.end_sent = True

    def finish(self, stream: Stream) -> None:
        """End a server-streaming or duplex call with success; do nothing if it has ended."""
        if stream.state is not ENDED:
            self.close_send(stream)
            self._end(stream)

    def _refuse(
        self, stream_id: int, code: int, text: str, details: Sequence[AnyMessage] = ()
    ) -> None:
        payload = encode_status(code, text, details)
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
        request = decode_request(data)
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
            # The caller has given up already: a handler that changes something must not begin.
            if timeout < 0:
                raise DeadlineExceeded("context deadline exceeded")
            stream.timeout_nano = timeout
        if metadata := request.metadata:
            if len(metadata) > MOST_METADATA:
                raise ResourceExhausted(f"ttrpc: more than {MOST_METADATA} metadata entries")
            stream.metadata = tuple((pair.key, pair.value) for pair in metadata)
        if payload and method.client_streaming:
            self._deliver(stream, payload, [])
        return stream

    def _receive_message(
        self, stream_id: int, flags: int, payload: bytes | int, events: Events
    ) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._receive_stray(stream_id, payload)
        elif not stream.method.client_streaming:
            # The client would take any answer for the end of the call, which goes on.
            return
        elif isinstance(payload, int):
            self.fail(stream, ResourceExhausted(oversize_text(payload)))
            events.append((Event.FAILED, stream))
        elif stream.state is HALF_CLOSED:
            if not (flags & NO_DATA or stream.end_sent):
                text = "data handling error: ttrpc: stream closed"
                self._refuse(stream_id, Code.INVALID_ARGUMENT, text)
        else:
            if not flags & NO_DATA:
                self._deliver(stream, payload, events)
            if flags & REMOTE_CLOSED:
                stream.state = HALF_CLOSED
                events.append((Event.CHANGED, stream))

    def _receive_stray(self, stream_id: int, payload: bytes | int) -> None:
        # The client may have sent it before it saw the end of the call. Go's server answers it;
        # containerd logs that answer as an error of a stream that ended well.
        if stream_id <= self._last_id:
            return
        if isinstance(payload, int):
            self._refuse(stream_id, Code.RESOURCE_EXHAUSTED, oversize_text(payload))
        else:
            self._refuse(stream_id, Code.INVALID_ARGUMENT, "StreamID is no longer active")

    def _overflow(self, stream: Stream) -> tuple[Event, Stream]:
        error = StreamFull()
        if stream.state is not ENDED:
            text = f"data handling error: {error.message}"
            self._refuse(stream.id, Code.INVALID_ARGUMENT, text)
        self._end(stream, error)
        self._unfinished.add(stream.id)
        return Event.FAILED, stream
