"""Peers of a stream's port that reset their connection.

TCP stands in for vsock: a unix socket cannot be made to send a reset, and both mean the same here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from socket import SO_LINGER, SOL_SOCKET

import gevent
import pytest
from gevent.socket import SHUT_WR, create_connection, socket

from kuasar_agent.stdio.vsock_ports import ListenerSink, ListenerSource
from tests.support.timeouts import IN_PROCESS


@pytest.fixture(autouse=True)
def hangs_end() -> Iterator[None]:
    with gevent.Timeout(IN_PROCESS):
        yield


@pytest.fixture
def listener() -> Iterator[socket]:
    with socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener


def dial(listener: socket) -> socket:
    return create_connection(listener.getsockname())


def reset(peer: socket) -> None:
    peer.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def anyone(_: object) -> bool:
    return True


def test_input_goes_on_with_the_next_writer_after_a_reset(listener: socket) -> None:
    address = listener.getsockname()
    source = ListenerSource(listener, anyone)
    first = dial(listener)
    first.sendall(b"one")
    assert source.read() == b"one"
    reset(first)
    reading = gevent.spawn(source.read)
    with create_connection(address) as second:
        second.sendall(b"two")
        assert reading.get() == b"two"
        second.shutdown(SHUT_WR)
        assert source.read() == b""
    source.close()


def test_output_goes_on_with_the_next_reader_after_a_reset(listener: socket) -> None:
    sink = ListenerSink(listener, anyone)
    first = dial(listener)
    sink.write(b"one")
    assert first.recv(100) == b"one"
    reset(first)
    with dial(listener) as second:
        sink.write(b"two")
        sink.finish()
        assert (second.recv(100), second.recv(100)) == (b"two", b"")


def test_the_rest_of_a_write_goes_to_the_successor_of_a_reader_that_is_stuck(
    listener: socket,
) -> None:
    # Far more than the two sockets hold.
    data = bytes(range(256)) * (64 << 10)
    sink = ListenerSink(listener, anyone)
    stuck = dial(listener)
    writing = gevent.spawn(sink.write, data)
    assert stuck.recv(1) == data[:1]
    reset(stuck)
    got = b""
    with dial(listener) as second:
        writing.link(lambda _: sink.finish())
        while piece := second.recv(1 << 20):
            got += piece
    assert got
    assert data.endswith(got)


def test_one_who_is_not_admitted_is_hung_up_on(listener: socket) -> None:
    refused = []

    def admit(address: object) -> bool:
        refused.append(address)
        return len(refused) > 1

    source = ListenerSource(listener, admit)
    stranger, host = dial(listener), dial(listener)
    host.sendall(b"hello")
    assert source.read() == b"hello"
    assert stranger.recv(1) == b""
    for peer in (stranger, host):
        peer.close()
    source.close()
