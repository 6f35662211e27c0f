"""Addresses: what each form connects to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from gevent.socket import socket

from kuasar_agent.api.task_pb2 import StateRequest, StateResponse
from kuasar_agent.ttrpc import Context, InvalidArgument, Server, connect, dial, listen
from tests.unit.ttrpc.peers import METHODS, PATIENCE, TASK


class Tasks:
    def state(self, _: Context, message: StateRequest) -> StateResponse:
        return StateResponse(id=message.id)


def state_through(address: str) -> None:
    with connect(address, PATIENCE) as client:
        assert client.call(METHODS["State"], StateRequest(id="c")) == StateResponse(id="c")


@pytest.mark.parametrize("prefix", ["", "ttrpc+"])
@pytest.mark.parametrize("form", ["unix://{}/s", "unix://{}/a+b", "unix://@{}"])
def test_a_unix_socket_is_reached_by_path_or_abstract_name(
    tmp_path: Path, form: str, prefix: str
) -> None:
    address = prefix + form.format(tmp_path)
    server = Server()
    server.register(TASK, Tasks())
    server.start(listen(address))
    state_through(address)
    server.close()


@contextmanager
def mux(directory: Path, *answers: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """A hypervisor's socket: each connection's line is noted and answered; None closes at once."""
    asked: list[bytes] = []
    listener = listen(f"unix://{directory}/mux")
    held: list[socket] = []

    def serve() -> None:
        for answer in answers:
            peer, _ = listener.accept()
            held.append(peer)
            if answer is None:
                peer.close()
                continue
            line = b""
            while not line.endswith(b"\n"):
                line += peer.recv(1)
            asked.append(line)
            peer.sendall(answer)

    greenlet = gevent.spawn(serve)
    yield f"hvsock://{directory}/mux:1024", asked
    greenlet.kill()
    for peer in [listener, *held]:
        peer.close()


def test_hvsock_leaves_the_bytes_after_the_line_in_the_socket(tmp_path: Path) -> None:
    with mux(tmp_path, b"OK 123\nframe") as (address, asked):
        peer = dial(address, PATIENCE)
        assert peer.recv(100) == b"frame"
        assert asked == [b"CONNECT 1024\n"]
        peer.close()


@pytest.mark.parametrize(
    "refusal",
    [None, b"NO\n", b"OK without an end" + bytes(64), b"\n"],
    ids=["end", "no", "endless", "empty"],
)
def test_hvsock_asks_again_after_a_refusal(tmp_path: Path, refusal: bytes | None) -> None:
    with mux(tmp_path, refusal, refusal, b"OK 1\n") as (address, asked):
        dial(address, PATIENCE).close()
        assert asked == [b"CONNECT 1024\n"] * (1 if refusal is None else 3)


def test_hvsock_waits_for_the_socket_to_appear(tmp_path: Path) -> None:
    dialing = gevent.spawn(dial, f"hvsock://{tmp_path}/mux:1024", PATIENCE)
    gevent.sleep(0)
    with mux(tmp_path, b"OK 1\n"):
        dialing.get().close()


@pytest.mark.parametrize("answer", [b"", b"NO\n"])
def test_hvsock_gives_up_at_the_timeout(tmp_path: Path, answer: bytes) -> None:
    with (
        mux(tmp_path, *[answer] * 100) as (address, _),
        pytest.raises(TimeoutError, match="no answer from port 1024"),
    ):
        dial(address, 0.1)


@pytest.mark.parametrize("function", [listen, lambda address: dial(address, 1)])
@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("tcp://h:1", "Scheme 'tcp' is not supported"),
        ("ttrpc+tcp://h:1", "Scheme 'tcp' is not supported"),
        ("/path", "'/path' is not an address"),
        ("vsock://2", "'2' is not <cid>:<port>"),
        ("vsock://x:1", "'x:1' is not <cid>:<port>"),
    ],
)
def test_a_bad_address_is_refused_by_its_name(function: object, address: str, text: str) -> None:
    assert callable(function)
    with pytest.raises(InvalidArgument) as caught:
        function(address)
    assert str(caught.value) == text


@pytest.mark.parametrize("rest", ["/path", "/path:", "/path:x", ":1"])
def test_hvsock_needs_a_path_and_a_port(rest: str) -> None:
    with pytest.raises(InvalidArgument, match="is not <path>:<port>"):
        dial(f"hvsock://{rest}", 1)


def test_nobody_listening_is_an_error_of_the_kernel(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        dial(f"unix://{tmp_path}/s", 1)
