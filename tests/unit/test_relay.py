"""The relay in front of the host kernel's vsock, with a unix socket in the guest's place."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent.socket import SHUT_WR, socket, socketpair

from kuasar_host.vsock.relay import relay
from tests.support.timeouts import IN_PROCESS


class Peers:
    """A client of the relay, and the guest's end of what the relay dials."""

    def __init__(self) -> None:
        self.client, self._relayed = socketpair()
        self.guest, self._dialled = socketpair()
        self.ports: list[int] = []
        self.done = gevent.spawn(relay, self._relayed, self._dial)
        for end in (self.client, self.guest):
            end.settimeout(IN_PROCESS)

    def _dial(self, port: int) -> tuple[socket, int]:
        self.ports.append(port)
        if port == 9:
            raise ConnectionRefusedError
        return self._dialled, 4000

    def close(self) -> None:
        for end in (self.client, self.guest, self._dialled):
            end.close()
        self.done.get(timeout=IN_PROCESS)


@pytest.fixture
def peers() -> Iterator[Peers]:
    pair = Peers()
    yield pair
    pair.close()


def read_all(sock: socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def test_a_port_is_dialled_and_the_hosts_port_answered(peers: Peers) -> None:
    peers.client.sendall(b"CONNECT 1024\nfirst")
    assert peers.guest.recv(100) == b"first"
    assert peers.ports == [1024]
    peers.guest.sendall(b"answer")
    peers.guest.shutdown(SHUT_WR)
    assert read_all(peers.client) == b"OK 4000\nanswer"


@pytest.mark.parametrize("line", [b"\n", b"CONNECT x\n", b"CONNECT 9\n", b"GET / HTTP/1.1\r\n"])
def test_a_bad_line_or_a_closed_port_is_an_end_without_an_answer(peers: Peers, line: bytes) -> None:
    peers.client.sendall(line)
    assert peers.client.recv(1) == b""


def test_the_end_of_one_direction_leaves_the_other_open(peers: Peers) -> None:
    peers.client.sendall(b"CONNECT 1024\nlast")
    peers.client.shutdown(SHUT_WR)
    assert read_all(peers.guest) == b"last"
    peers.guest.sendall(b"answer")
    peers.guest.close()
    assert read_all(peers.client) == b"OK 4000\nanswer"


def test_a_megabyte_goes_through_in_both_directions(peers: Peers) -> None:
    data = bytes(range(256)) * 4096
    peers.client.sendall(b"CONNECT 1024\n")
    assert peers.client.recv(8) == b"OK 4000\n"
    for source, target in ((peers.client, peers.guest), (peers.guest, peers.client)):
        reader = gevent.spawn(read_all, target)
        source.sendall(data)
        source.shutdown(SHUT_WR)
        assert reader.get(timeout=IN_PROCESS) == data


def test_a_client_that_leaves_ends_the_guests_connection(peers: Peers) -> None:
    peers.client.sendall(b"CONNECT 1024\n")
    assert peers.client.recv(8) == b"OK 4000\n"
    peers.client.close()
    assert peers.guest.recv(1) == b""
