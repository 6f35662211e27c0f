"""Both ends of a connection for tests: a served handler, and a peer that speaks raw frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import gevent
from gevent.socket import SHUT_WR, socket

from kuasar_agent.api.task_pb2 import DESCRIPTOR
from kuasar_agent.ttrpc import Client, Server, connect, dial, listen
from kuasar_agent.ttrpc.envelope_pb2 import Request, Response
from kuasar_agent.ttrpc.frames import HEADER, MAX_PAYLOAD, REQUEST, RESPONSE, Frame, encode

TASK = DESCRIPTOR.services_by_name["Task"]
METHODS = TASK.methods_by_name
SERVICE = "containerd.task.v2.Task"

PATIENCE = 20.0
"""Seconds after which a test that hangs fails."""


class RawPeer:
    """The other end of a connection, frame by frame."""

    def __init__(self, peer: socket) -> None:
        self.socket = peer
        peer.settimeout(PATIENCE)

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def half_close(self) -> None:
        self.socket.shutdown(SHUT_WR)

    def frame(self) -> Frame:
        """The next frame; EOFError when the connection ended."""
        length, stream, kind, flags = HEADER.unpack(self._exactly(HEADER.size))
        assert length <= MAX_PAYLOAD
        return Frame(stream, kind, flags, self._exactly(length), length)

    def at_end(self) -> bool:
        try:
            return not self.socket.recv(1)
        except ConnectionResetError:
            return True

    # Client's side.

    def call(self, stream: int, method: str, payload: bytes = b"", **envelope: Any) -> None:
        self.send(request(stream, method, payload, **envelope))

    def response(self) -> tuple[int, Response]:
        frame = self.frame()
        assert (frame.type, frame.flags) == (RESPONSE, 0)
        return frame.stream, Response.FromString(frame.payload)

    def status(self) -> tuple[int, int, str]:
        """Stream, code and text of the next response."""
        stream, response = self.response()
        return stream, response.status.code, response.status.message

    # Server's side.

    def request(self) -> tuple[int, Request]:
        frame = self.frame()
        assert (frame.type, frame.flags) == (REQUEST, 0)
        return frame.stream, Request.FromString(frame.payload)

    def respond(self, stream: int, payload: bytes = b"", **envelope: Any) -> None:
        response = Response(payload=payload, **envelope)
        self.send(encode(stream, RESPONSE, 0, response.SerializeToString()))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            if not (chunk := self.socket.recv(count - len(data))):
                raise EOFError
            data += chunk
        return data


def request(
    stream: int, method: str, payload: bytes = b"", *, service: str = SERVICE, **envelope: Any
) -> bytes:
    message = Request(service=service, method=method, payload=payload, **envelope)
    return encode(stream, REQUEST, 0, message.SerializeToString())


class Served(NamedTuple):
    server: Server
    address: str

    def raw(self) -> RawPeer:
        return RawPeer(dial(self.address, PATIENCE))

    def client(self) -> Client:
        return connect(self.address, PATIENCE)


@contextmanager
def serving(directory: Path, handler: object, **options: Any) -> Iterator[Served]:
    """A server of the Task service on a unix socket."""
    server = Server(**options)
    server.register(TASK, handler)
    address = f"unix://{directory}/s"
    server.start(listen(address))
    try:
        yield Served(server, address)
    finally:
        server.close()


@contextmanager
def raw_server(directory: Path) -> Iterator[tuple[Client, RawPeer]]:
    """A client and the raw peer it is connected to."""
    address = f"unix://{directory}/s"
    listener = listen(address)
    with connect(address, PATIENCE) as client:
        accepted, _ = listener.accept()
        with RawPeer(accepted) as peer:
            yield client, peer
    listener.close()


def eventually(condition: Any) -> None:
    """Let other greenlets run until a condition holds; the test's own limit bounds it."""
    while not condition():
        gevent.sleep(0.001)
