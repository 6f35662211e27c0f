"""A client under test, live or as a bare core, and the server's end of its connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import gevent
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from kuasar_agent.ttrpc import Client
from kuasar_agent.ttrpc.client_core import ClientCore
from kuasar_agent.ttrpc.service import methods_of
from kuasar_agent.ttrpc.status import (
    StatusError,
)
from kuasar_agent.ttrpc.stream import ENDED, Stream
from tests.support.ttrpc.echo import SERVICE, Echo
from tests.support.ttrpc.wire import PATIENCE, Chopper, Frame, SocketWire, pair, split


class Handle(Protocol):
    """A call in progress."""

    def send(self, text: str) -> None: ...

    def close_send(self) -> None: ...

    def recv(self) -> Any:
        """Return the next message, None at the end; or the reply of a client-streaming call."""


class Calls(Protocol):
    """A client under test, and the server's end of its connection."""

    def unary(self, text: str = "") -> Callable[[], Any]:
        """Start a call; return a function that returns the reply or raises."""

    def stream(self, method: str) -> Handle:
        """Start a streaming call."""

    def send(self, *frames: bytes) -> None: ...

    def receive(self, count: int = 1) -> list[Frame]: ...

    def in_progress(self) -> int: ...

    def lose(self) -> None:
        """Close the server's end."""


class LiveCalls:
    """A gevent client on a socket pair."""

    def __init__(self, *, bytewise: bool) -> None:
        theirs, ours = pair()
        self.client = Client(theirs)
        self._stub = self.client.stub(SERVICE)
        self._wire = SocketWire(ours, Echo(), bytewise=bytewise)
        self.send = self._wire.send
        self.receive = self._wire.receive

    def unary(self, text: str = "") -> Callable[[], Any]:
        call = gevent.spawn(self._stub.echo, StringValue(value=text))
        gevent.sleep(0)

        def result() -> Any:
            with gevent.Timeout(PATIENCE):
                return call.get()

        return result

    def stream(self, method: str) -> Handle:
        if method == "Count":
            stream = self._stub.count(Int64Value(value=3))
        elif method == "Sum":
            stream = self._stub.sum()
        else:
            stream = self._stub.chat()
        return _LiveHandle(stream, Int64Value if method == "Sum" else StringValue)

    def in_progress(self) -> int:
        return self.client.calls

    def lose(self) -> None:
        self._wire.sock.close()


class _LiveHandle:
    def __init__(self, stream: Any, message: Any) -> None:
        self._stream = stream
        self._message = message
        self.close_send = stream.close_send

    def send(self, text: str) -> None:
        self._stream.send(StringValue(value=text))

    def recv(self) -> Any:
        with gevent.Timeout(PATIENCE):
            return self._stream.recv()


class CoreCalls:
    """A client's core alone; receiving a frame that has not come fails."""

    def __init__(self, *, bytewise: bool) -> None:
        self._core = ClientCore()
        self._methods = methods_of(SERVICE, None)
        self._chopper = Chopper(bytewise=bytewise)
        self._frames: list[Frame] = []

    def unary(self, text: str = "") -> Callable[[], Any]:
        payload = StringValue(value=text).SerializeToString()
        method = self._methods["Echo"]
        try:
            stream = self._core.open(method, method.prefix, payload)
        except StatusError as error:
            return _raiser(error)
        return _CoreHandle(self._core, stream).recv

    def stream(self, method: str) -> Handle:
        rpc = self._methods[method]
        payload = Int64Value(value=3).SerializeToString() if method == "Count" else b""
        return _CoreHandle(self._core, self._core.open(rpc, rpc.prefix, payload))

    def send(self, *frames: bytes) -> None:
        for piece in self._chopper.chop(b"".join(frames)):
            self._core.receive_data(piece)

    def receive(self, count: int = 1) -> list[Frame]:
        frames, rest = split(self._core.outbox.take())
        assert not rest
        self._frames += frames
        assert len(self._frames) >= count
        frames, self._frames = self._frames[:count], self._frames[count:]
        return frames

    def in_progress(self) -> int:
        return len(self._core.streams)

    def lose(self) -> None:
        self._core.closed()


def _raiser(error: Exception) -> Callable[[], Any]:
    def result() -> Any:
        raise error

    return result


class _CoreHandle:
    def __init__(self, core: ClientCore, stream: Stream) -> None:
        self._core = core
        self._stream = stream

    def send(self, text: str) -> None:
        self._core.send(self._stream, StringValue(value=text).SerializeToString())

    def close_send(self) -> None:
        self._core.close_send(self._stream)

    def recv(self) -> Any:
        stream = self._stream
        if stream.method.server_streaming:
            message = self._core.take(stream)
            if message is not None:
                return stream.method.parse_reply(message)
        assert stream.state is ENDED
        if stream.error is not None:
            raise stream.error
        if stream.method.server_streaming:
            return None
        return stream.method.parse_reply(stream.payload)
