"""The host's side of the Streaming service, as containerd plays it."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import gevent
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from kuasar_agent.api.streaming_pb2 import StreamInit
from kuasar_agent.api.transfer_pb2 import Data, WindowUpdate
from kuasar_agent.services import streaming
from kuasar_agent.ttrpc import Client, ClientStream, StatusError, StreamClosed
from kuasar_agent.ttrpc.frames import DATA, NO_DATA, REMOTE_CLOSED, encode
from tests.support.agent import Agent

METHOD = streaming.SERVICE.methods_by_name["Stream"]
STREAM_WINDOW = 64 * 1024
"""Bytes that containerd grants at a time."""


def url(id: str) -> str:
    return f"ttrpc+hvsock:///run/kuasar/sb1/task.vsock:1024?streaming_id={id}"


def pack(message: Message) -> AnyMessage:
    return AnyMessage(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())


def open_stream(client: Client, id: str) -> ClientStream:
    """A stream that the agent has acknowledged."""
    stream = client.stream(METHOD)
    stream.send(pack(StreamInit(id=id)))
    ack = stream.recv()
    assert ack is not None
    assert (ack.type_url, ack.value) == ("google.protobuf.Empty", b"")
    return stream


def grant(stream: ClientStream, size: int) -> None:
    # The end may be here already, behind data that was not taken yet.
    with suppress(StreamClosed):
        stream.send(pack(WindowUpdate(update=size)))


def acknowledge(stream: ClientStream) -> None:
    """Close the host's side after the agent's, as Go's client does; ours writes nothing then."""
    call = stream._call
    frame = encode(call.stream.id, DATA, REMOTE_CLOSED | NO_DATA, b"")
    call._connection.core.outbox.append(frame)
    call._connection.ask_flush()


def next_data(stream: ClientStream) -> bytes | None:
    message = stream.recv()
    if message is None:
        return None
    assert message.type_url == "containerd.types.transfer.Data"
    return bytes(Data.FromString(message.value).data)


def next_grant(stream: ClientStream) -> int | None:
    message = stream.recv()
    if message is None:
        return None
    assert message.type_url == "containerd.types.transfer.WindowUpdate"
    return int(WindowUpdate.FromString(message.value).update)


def receive(stream: ClientStream) -> bytes:
    """Everything to the end, granting as containerd's receiver does."""
    window = 0
    chunks: list[bytes] = []
    while True:
        if window < STREAM_WINDOW:
            grant(stream, STREAM_WINDOW)
            window += STREAM_WINDOW
        data = next_data(stream)
        if data is None:
            acknowledge(stream)
            return b"".join(chunks)
        chunks.append(data)
        window -= len(data)


def receive_exactly(stream: ClientStream, size: int) -> bytes:
    """That many bytes or all there are: no more than that is granted."""
    grant(stream, size)
    got = b""
    while len(got) < size and (data := next_data(stream)) is not None:
        got += data
    return got


def send(stream: ClientStream, data: bytes, *, window: int = 0, close: bool = True) -> int:
    """Send it within what the agent grants, `window` of it already; what is left of the grants."""
    rest = memoryview(data)
    while rest:
        while window <= 0:
            window += next_grant(stream) or 0
        piece = rest[: min(window, 32 * 1024)]
        stream.send(pack(Data(data=bytes(piece))))
        window -= len(piece)
        rest = rest[len(piece) :]
    if close:
        stream.close_send()
    return window


def attach_stdin(client: Client, id: str) -> tuple[ClientStream, int]:
    """A stream and its first grant, once the agent knows that the one before it is gone."""
    deadline = time.monotonic() + 20
    while True:
        stream = open_stream(client, id)
        try:
            return stream, next_grant(stream) or 0
        except StatusError:
            if time.monotonic() > deadline:
                raise
            gevent.sleep(0.01)


def receive_in_pieces(agent: Agent, id: str, pieces: int, seed: int) -> bytes:
    """Over a connection for each piece, of random size, and to the end over the last one."""
    sizes = random.Random(seed)
    got = b""
    for _ in range(pieces):
        with agent.connect() as client:
            got += receive_exactly(open_stream(client, id), sizes.randrange(1, 20_000))
    with agent.connect() as client:
        return got + receive(open_stream(client, id))
