"""90: nothing is left of calls and connections, however they end."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gevent
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from greenlet import greenlet

from kuasar_agent.ttrpc import Client, NotFound, Server, StatusError, Stub, connect
from tests.support.ttrpc.echo import SERVICE, Echo
from tests.support.ttrpc.live import raw, until
from tests.support.ttrpc.wire import RO, data, frame, request

CALLS = 2000
CONNECTIONS = 200
TOLERANCE = 190
"""Blocks of memory that caches of the interpreter and of pytest may add. Every kind of call and of
connection is tried at least 200 times, so one block lost each time is more."""
WARM_UP = 150
"""Connections after which the caches are full."""


def unary(stub: Stub) -> None:
    assert stub.echo(StringValue(value="x")).value == "x"


def unary_in_time(stub: Stub) -> None:
    stub.nothing(Empty(), timeout=30, metadata={"key": "value"})


def failing(stub: Stub) -> None:
    with pytest.raises(NotFound):
        stub.throw(StringValue())


def unknown(stub: Stub) -> None:
    with pytest.raises(StatusError):
        stub.missing(StringValue())


def server_stream(stub: Stub) -> None:
    assert sum(1 for _ in stub.count(Int64Value(value=3))) == 3


def failing_stream(stub: Stub) -> None:
    stream = stub.failing(Int64Value(value=1))
    assert stream.recv() == Int64Value()
    with pytest.raises(NotFound):
        stream.recv()


def client_stream(stub: Stub) -> None:
    stream = stub.sum()
    stream.send(Int64Value(value=2))
    assert stream.close_and_recv().value == 2


def duplex(stub: Stub) -> None:
    stream = stub.chat(timeout=30)
    stream.send(StringValue(value="x"))
    assert stream.recv().value == "x"
    stream.close_send()
    assert stream.recv() is None


def abandoned(stub: Stub) -> None:
    with stub.chat() as stream:
        stream.send(StringValue(value="x"))
        stream.close_send()


KINDS: tuple[Callable[[Stub], None], ...] = (
    unary,
    unary_in_time,
    failing,
    unknown,
    server_stream,
    failing_stream,
    client_stream,
    duplex,
    abandoned,
    unary,
)


def greenlets() -> int:
    return sum(isinstance(each, greenlet) and not each.dead for each in gc.get_objects())


@contextmanager
def nothing_left(server: Server, echo: Echo) -> Iterator[None]:
    """Descriptors, greenlets and memory are what they were, and the server's tables empty."""

    def state() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), server.connections  # noqa: PTH208

    echo.contexts.clear()
    gc.collect()
    before, greenlets_before, blocks = state(), greenlets(), sys.getallocatedblocks()
    yield
    until(lambda: state() == before and not server.running)
    echo.contexts.clear()
    gc.collect()
    assert greenlets() <= greenlets_before
    assert sys.getallocatedblocks() - blocks < TOLERANCE
    assert server.calls == 0
    assert server.buffered() == (0, 0)


def mixed_calls(client: Client, amount: int) -> None:
    stub = client.stub(SERVICE)
    for index in range(amount):
        KINDS[index % len(KINDS)](stub)


def test_90_calls_of_every_kind_leave_nothing(
    server: Server, client: Client, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    mixed_calls(client, 100)
    with nothing_left(server, echo):
        mixed_calls(client, CALLS)
    assert client.calls == 0
    assert not caplog.records


def test_90_connections_leave_nothing(server: Server, echo: Echo, address: str) -> None:
    def use() -> None:
        with connect(address) as client:
            client.stub(SERVICE).nothing(Empty())

    for _ in range(WARM_UP):
        use()
    with nothing_left(server, echo):
        for _ in range(CONNECTIONS):
            use()


def test_90_clients_that_vanish_leave_nothing(
    server: Server, echo: Echo, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    def vanish(index: int) -> None:
        sock = raw(address)
        calls = [request(1, "Wait"), request(3, "Chat", flags=RO), request(5, "Hold", flags=RO)]
        messages = [data(3, "x"), data(5, "y")] * (index % 20)
        cut = frame(7, 1, 0, bytes(100))[: index % 110]
        sock.sendall(b"".join([*calls, *messages, cut]))
        until(lambda: server.running >= 3)
        sock.close()
        until(lambda: not server.running)

    for index in range(WARM_UP):
        vanish(index)
    with nothing_left(server, echo):
        for index in range(CONNECTIONS):
            vanish(index)
    # Those that a client did not wait for are stopped, not left.
    until(lambda: echo.finished.qsize() == 2 * (WARM_UP + CONNECTIONS))
    assert not caplog.records


def test_90_calls_given_up_by_their_greenlets_leave_nothing(
    server: Server, client: Client, echo: Echo
) -> None:
    stub = client.stub(SERVICE)

    def give_up() -> None:
        calls = [gevent.spawn(stub.wait, StringValue(), timeout=60) for _ in range(50)]
        until(lambda: server.running == 50)
        gevent.killall(calls)
        echo.release.set()
        until(lambda: not server.running)
        echo.release.clear()

    give_up()
    with nothing_left(server, echo):
        for _ in range(5):
            give_up()
    assert client.calls == 0
