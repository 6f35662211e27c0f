"""The other end of a server or client under test, frame by frame.

A check runs the same against the bare core, fed whole and byte by byte, and against the gevent
server or client over a real socket.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple, Protocol

import gevent
from gevent import socket as gsocket
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from kuasar_agent.ttrpc.envelope_pb2 import KeyValue, Request, Response
from kuasar_agent.ttrpc.server_core import ServerCore
from kuasar_agent.ttrpc.service import methods_of
from kuasar_agent.ttrpc.status import NotFound
from kuasar_agent.ttrpc.stream import ENDED, HALF_CLOSED, Stream
from tests.support.ttrpc.echo import NAME, SERVICE, Echo

REQUEST, RESPONSE, DATA = 1, 2, 3
RC, RO, ND = 1, 2, 4
LIMIT = 4 << 20
PATIENCE = 10.0
"""Seconds after which a test without an answer fails."""

_HEADER = Struct(">IIBB")


class Frame(NamedTuple):
    """A frame read from the wire."""

    stream_id: int
    kind: int
    flags: int
    payload: bytes

    @property
    def response(self) -> Response:
        assert self.kind == RESPONSE
        return Response.FromString(self.payload)

    @property
    def status(self) -> tuple[int, str]:
        """Code and text of a Response."""
        return self.response.status.code, self.response.status.message

    @property
    def text(self) -> str:
        """The StringValue in an OK Response or in Data."""
        if self.kind == DATA:
            return StringValue.FromString(self.payload).value
        response = self.response
        assert not response.status.code, response
        return StringValue.FromString(response.payload).value


def frame(stream_id: int, kind: int, flags: int = 0, payload: bytes = b"") -> bytes:
    """Return a frame, legal or not."""
    return _HEADER.pack(len(payload), stream_id, kind, flags) + payload


def request(
    stream_id: int,
    method: str = "Echo",
    text: str | None = None,
    *,
    payload: bytes = b"",
    flags: int = 0,
    service: str = NAME,
    timeout: int = 0,
    metadata: Sequence[tuple[str, str]] = (),
) -> bytes:
    """Return a Request whose message is a StringValue or bytes."""
    if text is not None:
        payload = StringValue(value=text).SerializeToString()
    envelope = Request(
        service=service,
        method=method,
        payload=payload,
        timeout_nano=timeout,
        metadata=[KeyValue(key=key, value=value) for key, value in metadata],
    )
    return frame(stream_id, REQUEST, flags, envelope.SerializeToString())


def data(stream_id: int, text: str | None = None, flags: int = 0) -> bytes:
    """Return Data with a StringValue; without text, with no bytes."""
    payload = b"" if text is None else StringValue(value=text).SerializeToString()
    return frame(stream_id, DATA, flags, payload)


def reply(stream_id: int, text: str = "") -> bytes:
    """Return an OK Response as Go sends it."""
    message = StringValue(value=text).SerializeToString()
    return frame(stream_id, RESPONSE, 0, Response(payload=message).SerializeToString())


def split(stream: bytes) -> tuple[list[Frame], bytes]:
    """Return the whole frames and the rest; fail if a frame is not legal."""
    frames = []
    while len(stream) >= _HEADER.size:
        length, stream_id, kind, flags = _HEADER.unpack_from(stream)
        assert length <= LIMIT
        end = _HEADER.size + length
        if len(stream) < end:
            break
        frames.append(Frame(stream_id, kind, flags, stream[_HEADER.size : end]))
        stream = stream[end:]
    return frames, stream


class Wire(Protocol):
    """One connection to a server under test."""

    def send(self, *frames: bytes) -> None:
        """Write to the server."""

    def receive(self, count: int = 1) -> list[Frame]:
        """Return the next frames from the server; fail if they do not come."""

    def release(self) -> None:
        """Let the handlers that wait continue."""


class Source(Protocol):
    """An end of a connection from which frames are received."""

    def receive(self, count: int = 1) -> list[Frame]: ...


def only(wire: Source) -> Frame:
    """Return the next frame."""
    return wire.receive(1)[0]


class Chopper:
    """A way to hand over bytes: whole, or one by one."""

    def __init__(self, *, bytewise: bool) -> None:
        self._bytewise = bytewise

    def chop(self, stream: bytes) -> list[bytes]:
        # The start suffices: it has the headers and the small frames.
        if not self._bytewise:
            return [stream]
        head = [stream[index : index + 1] for index in range(min(len(stream), 4096))]
        rest = [stream[index : index + 65521] for index in range(4096, len(stream), 65521)]
        return head + rest


class SocketWire:
    """A raw socket to a live server or client."""

    def __init__(self, sock: gsocket.socket, echo: Echo, *, bytewise: bool = False) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        self._echo = echo
        self._chopper = Chopper(bytewise=bytewise)
        self._received = b""
        self._frames: list[Frame] = []

    def send(self, *frames: bytes) -> None:
        for piece in self._chopper.chop(b"".join(frames)):
            self.sock.sendall(piece)
            gevent.sleep(0)

    def receive(self, count: int = 1) -> list[Frame]:
        while len(self._frames) < count:
            received = self.sock.recv(1 << 20)
            assert received, f"closed after {self._frames}"
            frames, self._received = split(self._received + received)
            self._frames += frames
        frames, self._frames = self._frames[:count], self._frames[count:]
        return frames

    def release(self) -> None:
        self._echo.release.set()

    def at_end(self) -> bool:
        """Return whether the other end has closed without sending another byte."""
        try:
            return not self._frames and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


class CoreWire:
    """The server's core with the echo service's handlers reduced to a few lines.

    No handler waits: it takes the messages that have come, at each event.
    """

    def __init__(self, *, bytewise: bool, strict_ids: bool = True) -> None:
        services = {NAME: methods_of(SERVICE, None)}
        self.core = ServerCore(services, strict_ids=strict_ids)
        self._chopper = Chopper(bytewise=bytewise)
        self._sums: dict[int, int] = {}
        self._held: list[Stream] = []
        self._frames: list[Frame] = []

    def send(self, *frames: bytes) -> None:
        for piece in self._chopper.chop(b"".join(frames)):
            for _event, stream in self.core.receive_data(piece):
                if stream.state is not ENDED:
                    self._step(stream)

    def receive(self, count: int = 1) -> list[Frame]:
        frames, rest = split(self.core.outbox.take())
        assert not rest
        self._frames += frames
        assert len(self._frames) >= count, f"only {self._frames}"
        frames, self._frames = self._frames[:count], self._frames[count:]
        return frames

    def release(self) -> None:
        for stream in self._held:
            if stream.method.server_streaming:
                self.core.send(stream, StringValue(value="late").SerializeToString())
                self.core.finish(stream)
            else:
                self.core.reply(stream, stream.payload)

    def _step(self, stream: Stream) -> None:
        name = stream.method.full_name.rpartition("/")[2]
        if name in ("Echo", "EchoBytes", "Nothing"):
            self.core.reply(stream, stream.payload)
        elif name == "Throw":
            self.core.fail(stream, NotFound("no such thing"))
        elif name in ("Count", "Failing"):
            for number in range(Int64Value.FromString(stream.payload).value):
                self.core.send(stream, Int64Value(value=number).SerializeToString())
            if name == "Count":
                self.core.finish(stream)
            else:
                self.core.fail(stream, NotFound("no more"))
        elif name == "Goodbye":
            self.core.send(stream, StringValue(value="bye").SerializeToString())
            self.core.finish(stream)
        elif name in ("Block", "Late"):
            self._take_all(stream)
            if stream not in self._held:
                self._held.append(stream)
        elif name == "Sum":
            numbers = [Int64Value.FromString(each).value for each in self._take_all(stream)]
            self._sums[stream.id] = self._sums.get(stream.id, 0) + sum(numbers)
            if stream.state is HALF_CLOSED:
                total = Int64Value(value=self._sums[stream.id])
                self.core.reply(stream, total.SerializeToString())
        elif name == "Chat":
            for message in self._take_all(stream):
                self.core.send(stream, message)
            if stream.state is HALF_CLOSED:
                self.core.finish(stream)

    def _take_all(self, stream: Stream) -> list[bytes]:
        taken = []
        while (message := self.core.take(stream)) is not None:
            taken.append(message)
        return taken


def pair() -> tuple[socket.socket, gsocket.socket]:
    """Return a connected pair: one end for the code under test, one for the test."""
    theirs, ours = socket.socketpair()
    return theirs, gsocket.socket(ours.family, ours.type, ours.proto, ours.detach())
