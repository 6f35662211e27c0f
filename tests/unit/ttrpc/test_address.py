"""Addresses: what each form connects to; numbered as the conformance list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from gevent import socket as gsocket
from google.protobuf.wrappers_pb2 import StringValue

from kuasar_agent.ttrpc import (
    Client,
    DeadlineExceeded,
    InvalidArgument,
    Server,
    connect,
    dial,
    listen,
)
from kuasar_agent.ttrpc.address import VMADDR_CID_ANY, Address, parse
from tests.support.ttrpc.echo import SERVICE, Echo
from tests.support.ttrpc.live import serving, until
from tests.support.ttrpc.wire import PATIENCE, SocketWire, only, reply, request

CONNECT = b"CONNECT 1024\n"


class Mux:
    """A hypervisor's socket: notes each connection's line and answers it; None closes at once."""

    def __init__(self, directory: Path, answers: list[bytes | None]) -> None:
        self.address = f"hvsock://{directory}/mux:1024"
        self.asked: list[bytes] = []
        self.peers: list[gsocket.socket] = []
        self._answers = answers
        self._listener = listen(f"unix://{directory}/mux")
        self._server = gevent.spawn(self._serve)

    def _serve(self) -> None:
        for answer in self._answers:
            peer, _ = self._listener.accept()
            self.peers.append(peer)
            if answer is None:
                peer.close()
                continue
            line = b""
            while not line.endswith(b"\n"):
                line += peer.recv(1)
            self.asked.append(line)
            peer.sendall(answer)

    def close(self) -> None:
        self._server.kill()
        for sock in (self._listener, *self.peers):
            sock.close()


@contextmanager
def mux(directory: Path, *answers: bytes | None) -> Iterator[Mux]:
    server = Mux(directory, list(answers))
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("prefix", ["", "ttrpc+"])
@pytest.mark.parametrize("form", ["unix://{}/s", "unix://{}/a+b", "unix://@{}", "unix://@{}+x"])
def test_95_unix_socket_is_reached_by_path_and_by_abstract_name(
    tmp_path: Path, form: str, prefix: str
) -> None:
    address = prefix + form.format(tmp_path)
    with serving(address, Echo()), connect(address, PATIENCE) as client:
        assert client.stub(SERVICE).echo(StringValue(value="hi")).value == "hi"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("vsock://2:1024", Address("vsock", cid=2, port=1024)),
        ("vsock://-1:1024", Address("vsock", cid=VMADDR_CID_ANY, port=1024)),
        ("ttrpc+vsock://3:1", Address("vsock", cid=3, port=1)),
        ("hvsock:///run/a:b/vm.sock:1024", Address("hvsock", path="/run/a:b/vm.sock", port=1024)),
        ("ttrpc+hvsock:///vm+x.sock:7", Address("hvsock", path="/vm+x.sock", port=7)),
        ("unix:///a://b", Address("unix", path="/a://b")),
        ("tcp://example.org:80", Address("tcp", host="example.org", port=80)),
        ("ttrpc+tcp://[::1]:80", Address("tcp", host="::1", port=80)),
        ("tcp://:80", Address("tcp", port=80)),
    ],
)
def test_95_addresses_are_read(address: str, expected: Address) -> None:
    assert parse(address) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", ""])
def test_95_tcp_is_reached_by_address_by_name_and_at_any_interface(host: str) -> None:
    server, echo = Server(), Echo()
    server.register(SERVICE, echo, partial=True)
    listener = listen(f"tcp://{host}:0")
    port = listener.getsockname()[1]
    server.start(listener)
    with connect(f"tcp://{host}:{port}", PATIENCE) as client:
        assert client.stub(SERVICE).echo(StringValue(value="hi")).value == "hi"
        peer = echo.contexts[0].peer
    server.close()
    assert peer is not None
    assert peer.host in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    assert peer.uid is None


def test_95_small_frames_on_tcp_do_not_wait_for_acknowledgements() -> None:
    with listen("tcp://127.0.0.1:0") as listener:
        port = listener.getsockname()[1]
        sock = dial(f"tcp://127.0.0.1:{port}", PATIENCE)
        watched = sock.dup()
        with Client(sock), watched:
            assert watched.getsockopt(gsocket.IPPROTO_TCP, gsocket.TCP_NODELAY)


def test_95_port_of_a_server_that_closed_its_connections_can_be_used_again() -> None:
    port = 0
    for _ in range(2):
        server = Server()
        listener = listen(f"tcp://127.0.0.1:{port}")
        port = listener.getsockname()[1]
        server.start(listener)
        with connect(f"tcp://127.0.0.1:{port}", PATIENCE):
            until(lambda: server.connections == 1)  # noqa: B023
            server.close()


def test_95_hvsock_listens_where_the_hypervisor_leads_the_guests_connections(
    tmp_path: Path,
) -> None:
    with (
        serving(f"hvsock://{tmp_path}/vm.sock:1025", Echo()),
        connect(f"unix://{tmp_path}/vm.sock_1025") as client,
    ):
        assert client.stub(SERVICE).echo(StringValue(value="hi")).value == "hi"


def test_95_client_talks_through_a_hypervisor(tmp_path: Path) -> None:
    with mux(tmp_path, b"OK 1073741824\n") as hypervisor:
        with connect(f"ttrpc+{hypervisor.address}", PATIENCE) as client:
            call = gevent.spawn(client.stub(SERVICE).echo, StringValue(value="hi"))
            wire = SocketWire(hypervisor.peers[0], Echo())
            assert only(wire).stream_id == 1
            wire.send(reply(1, "ok"))
            assert call.get(timeout=PATIENCE).value == "ok"
        assert hypervisor.asked == [CONNECT]


def test_96_bytes_glued_to_the_hypervisors_answer_are_not_lost(tmp_path: Path) -> None:
    with (
        mux(tmp_path, b"OK 123\n" + request(1, text="early")) as hypervisor,
        dial(hypervisor.address, PATIENCE) as sock,
    ):
        assert only(SocketWire(sock, Echo())).stream_id == 1


def test_96_answer_byte_by_byte_is_read(tmp_path: Path) -> None:
    with mux(tmp_path, b"") as hypervisor:
        dialing = gevent.spawn(dial, hypervisor.address, PATIENCE)
        while not hypervisor.asked:
            gevent.sleep(0.001)
        for byte in b"OK 12\nX":
            hypervisor.peers[0].sendall(bytes([byte]))
            gevent.sleep(0.001)
        with dialing.get(timeout=PATIENCE) as sock:
            assert sock.recv(10) == b"X"


@pytest.mark.parametrize(
    "refusal",
    [None, b"NO\n", b"\n", b"OK without an end" + bytes(64), b"OK"],
    ids=["end", "no", "nothing", "endless", "silence"],
)
def test_97_refused_attempt_is_made_again(
    tmp_path: Path, refusal: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kuasar_agent.ttrpc.address.HVSOCK_ATTEMPT", 0.05)
    with mux(tmp_path, refusal, refusal, b"OK 1\n") as hypervisor:
        dial(hypervisor.address, PATIENCE).close()
        assert hypervisor.asked == [CONNECT] * (1 if refusal is None else 3)


def test_97_socket_may_appear_after_dialing_began(tmp_path: Path) -> None:
    dialing = gevent.spawn(dial, f"hvsock://{tmp_path}/mux:1024", PATIENCE)
    gevent.sleep(0)
    with mux(tmp_path, b"OK 1\n"):
        dialing.get(timeout=PATIENCE).close()


@pytest.mark.parametrize("answer", [b"", b"NO\n"], ids=["silence", "no"])
def test_97_attempts_end_at_the_timeout(tmp_path: Path, answer: bytes) -> None:
    with (
        mux(tmp_path, *[answer] * 100) as hypervisor,
        pytest.raises(DeadlineExceeded, match=r"/mux:1024"),
    ):
        dial(hypervisor.address, 0.1)


def test_97_no_time_left_is_a_timeout(tmp_path: Path) -> None:
    with (
        mux(tmp_path, b"OK 1\n") as hypervisor,
        pytest.raises(DeadlineExceeded, match=r"/mux:1024"),
    ):
        dial(hypervisor.address, 0.0)


def test_97_without_a_timeout_there_is_one_attempt(tmp_path: Path) -> None:
    with mux(tmp_path, b"NO\n", b"OK 1\n") as hypervisor:
        with pytest.raises(ConnectionRefusedError, match="NO"):
            dial(hypervisor.address)
        assert hypervisor.asked == [CONNECT]


@pytest.mark.parametrize("use", [listen, lambda address: dial(address, 1)], ids=["listen", "dial"])
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("udp://h:1", "Scheme 'udp' is not supported"),
        ("ttrpc+udp://h:1", "Scheme 'udp' is not supported"),
        ("tcp://host", "address 'tcp://host' has no port"),
        ("tcp://::1:80", "the IPv6 address in 'tcp://::1:80' needs brackets"),
        ("tcp://h:65536", "'65536' in address 'tcp://h:65536' is not a number"),
        ("/path", "address '/path' has no scheme"),
        ("unix://", "address 'unix://' has no path"),
        ("unix://@", "address 'unix://@' has no path"),
        ("vsock://2", "address 'vsock://2' has no port"),
        ("vsock://x:1", "'x' in address 'vsock://x:1' is not a number"),
        ("vsock://2:٣", "'٣' in address 'vsock://2:٣' is not a number"),
        ("vsock://2:4294967296", "'4294967296' in address 'vsock://2:4294967296' is not a number"),
        ("hvsock:///path", "address 'hvsock:///path' has no port"),
        ("hvsock:///path:", "'' in address 'hvsock:///path:' is not a number"),
        ("hvsock://:1", "address 'hvsock://:1' has no port"),
    ],
)
def test_98_bad_address_is_refused_in_words_that_name_what_is_wrong(
    use: Callable[[str], object], address: str, words: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        use(address)
    assert str(raised.value) == words


def test_address_without_a_listener_is_the_kernels_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        dial(f"unix://{tmp_path}/s", 1)


def test_socket_of_a_server_that_has_ended_is_replaced(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/s"
    listen(address).close()
    with serving(address, Echo()), connect(address) as client:
        assert client.stub(SERVICE).echo(StringValue(value="hi")).value == "hi"


def test_socket_in_use_and_other_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with listen(f"unix://{tmp_path}/s"):
        for name in ("s", "file"):
            with pytest.raises(OSError, match="in use"):
                listen(f"unix://{tmp_path}/{name}")
    assert (tmp_path / "file").read_text() == "precious"


def test_server_that_accepts_nothing_is_out_of_time(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/s"
    with (
        listen(address, backlog=0),
        dial(address, 1),
        pytest.raises(DeadlineExceeded, match="out of time"),
    ):
        dial(address, 0.05)
