"""The protocol of one connection without any IO: bytes in, events out; calls in, bytes out.

A stream id is odd, chosen by the client, and grows with every call. A unary call is

    client  Request -> server          server  Response -> client

and either side may have any number of calls open. Responses come in any order. A bad frame gets a
Response with an error status on its own id; the connection goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from kuasar_agent.ttrpc import frames
from kuasar_agent.ttrpc.envelope_pb2 import KeyValue, Request, Response
from kuasar_agent.ttrpc.status import Code, InvalidArgument, ResourceExhausted, StatusError

Metadata = Sequence[tuple[str, str]]

_LAST_ID = 0xFFFFFFFF


class RequestReceived(NamedTuple):
    """Server: a call began."""

    stream: int
    request: Request


class ResponseReceived(NamedTuple):
    """Client: a call ended, with `error` or with a payload."""

    stream: int
    payload: bytes
    error: StatusError | None


def oversize(length: int) -> ResourceExhausted:
    """The status of a message that does not fit into a frame."""
    return ResourceExhausted(
        f"message length {length} exceed maximum message size of {frames.MAX_PAYLOAD}"
    )


class ServerConnection:
    """The server's side. `receive` never raises: what is wrong is answered."""

    def __init__(self, *, strict_ids: bool = True) -> None:
        """Without `strict_ids` a lower id than the last one is accepted unless its call is open.

        The Rust client takes its ids before it queues its frames, so two may be swapped.
        """
        self.active: set[int] = set()
        """Ids of the calls that were not answered yet."""
        self._reader = frames.FrameReader()
        self._strict_ids = strict_ids
        self._last = 0
        self._out: list[bytes] = []

    def receive(self, data: bytes) -> list[RequestReceived]:
        """The calls that `data` completes."""
        events = []
        for frame in self._reader.feed(data):
            request = self._receive_frame(frame)
            if request is not None:
                self.active.add(frame.stream)
                events.append(RequestReceived(frame.stream, request))
        return events

    def respond(self, stream: int, payload: bytes) -> None:
        """Answer a call; a payload that is too large becomes an error status."""
        if stream not in self.active:
            return
        encoded = Response(payload=payload).SerializeToString()
        if len(encoded) > frames.MAX_PAYLOAD:
            self.fail(stream, oversize(len(encoded)))
            return
        self.active.remove(stream)
        self._out.append(frames.encode(stream, frames.RESPONSE, 0, encoded))

    def fail(self, stream: int, error: StatusError) -> None:
        """Answer a call with a status; one that was answered already is left alone."""
        if stream in self.active:
            self.active.remove(stream)
            self._reject(stream, error)

    def to_send(self) -> bytes:
        """What has to be written to the peer, once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def _receive_frame(self, frame: frames.Frame) -> Request | None:
        """The request that a frame opens, or None when the frame was dealt with."""
        if frame.type not in (frames.REQUEST, frames.DATA):
            return None
        error = self._check(frame)
        if error is None and frame.type == frames.REQUEST:
            try:
                return Request.FromString(frame.payload)
            except DecodeError as reason:
                error = InvalidArgument(f"unmarshal request error: {reason}")
        if error is not None:
            if frame.length > frames.MAX_PAYLOAD:
                self.active.discard(frame.stream)
            self._reject(frame.stream, error)
        return None

    def _check(self, frame: frames.Frame) -> StatusError | None:
        if frame.stream % 2 == 0:
            return InvalidArgument("StreamID must be odd for client initiated streams")
        if frame.length > frames.MAX_PAYLOAD:
            return oversize(frame.length)
        if frame.type == frames.DATA:
            # Nothing is streamed to a unary call: what comes for an open one is dropped.
            if frame.stream in self.active:
                return None
            return InvalidArgument("StreamID is no longer active")
        reused = frame.stream in self.active or frame.stream == self._last
        if reused or (self._strict_ids and frame.stream < self._last):
            return InvalidArgument("StreamID cannot be re-used and must increment")
        self._last = max(self._last, frame.stream)
        return None

    def _reject(self, stream: int, error: StatusError) -> None:
        response = Response()
        response.status.code = error.code
        # Texts may hold file names that are no UTF-8, as lone surrogates.
        response.status.message = error.message.encode(errors="backslashreplace").decode()
        response.status.details.extend(error.details)
        encoded = response.SerializeToString()
        if len(encoded) > frames.MAX_PAYLOAD:
            encoded = Response(status={"code": error.code}).SerializeToString()
        self._out.append(frames.encode(stream, frames.RESPONSE, 0, encoded))


class ClientConnection:
    """The client's side."""

    def __init__(self) -> None:
        self.active: set[int] = set()
        self._reader = frames.FrameReader()
        self._next = 1

    @property
    def exhausted(self) -> bool:
        """Whether every id was used; the caller has to dial again."""
        return self._next > _LAST_ID

    def call(
        self,
        service: str,
        method: str,
        payload: bytes,
        timeout_ns: int = 0,
        metadata: Metadata = (),
    ) -> tuple[int, bytes]:
        """Begin a call: its id, and the bytes to write before those of any later call.

        Raises ResourceExhausted when the request does not fit into a frame.
        """
        request = Request(
            service=service,
            method=method,
            payload=payload,
            timeout_nano=timeout_ns,
            metadata=[KeyValue(key=key, value=value) for key, value in metadata],
        )
        encoded = request.SerializeToString()
        if len(encoded) > frames.MAX_PAYLOAD:
            raise oversize(len(encoded))
        stream = self._next
        self._next += 2
        self.active.add(stream)
        return stream, frames.encode(stream, frames.REQUEST, 0, encoded)

    def forget(self, stream: int) -> None:
        """The caller gave up; a late answer is dropped."""
        self.active.discard(stream)

    def receive(self, data: bytes) -> list[ResponseReceived]:
        """The calls that `data` ends; frames of no open call are dropped."""
        events = []
        for frame in self._reader.feed(data):
            if frame.stream in self.active and frame.type in (frames.RESPONSE, frames.DATA):
                self.active.remove(frame.stream)
                events.append(_answer(frame))
        return events


def _answer(frame: frames.Frame) -> ResponseReceived:
    if frame.length > frames.MAX_PAYLOAD:
        return ResponseReceived(frame.stream, b"", oversize(frame.length))
    if frame.type == frames.DATA:
        text = "received data from non-streaming server: protocol error"
        return ResponseReceived(frame.stream, b"", StatusError.from_code(Code.UNKNOWN, text))
    try:
        response = Response.FromString(frame.payload)
    except DecodeError as reason:
        text = f"unmarshal response error: {reason}"
        return ResponseReceived(frame.stream, b"", StatusError.from_code(Code.INTERNAL, text))
    if response.status.code:
        status = response.status
        error = StatusError.from_code(status.code, status.message, tuple(status.details))
        return ResponseReceived(frame.stream, b"", error)
    return ResponseReceived(frame.stream, response.payload, None)
