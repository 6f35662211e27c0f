"""Connections through the vsock back end: both directions, credit, and every way to end."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from kuasar_host.vsock.connection import BUFFER_SIZE
from kuasar_host.vsock.packet import SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, Header, Op
from tests.support.timeouts import IN_PROCESS
from tests.support.vsock.backend import Backend, accept, read_all, read_line
from tests.support.vsock.driver import GUEST_CID, Driver, Stream

QUIET = 0.2


def pattern(size: int) -> bytes:
    return bytes((i * 7 + (i >> 8)) & 0xFF for i in range(size))


def guest_reads(stream: Stream, size: int) -> bytes:
    """The guest reads `size` bytes and gives the room back as it does."""
    data = b""
    while len(data) < size:
        packet = stream.receive()
        if packet.op == Op.RW:
            data += packet.payload
            stream.taken += len(packet.payload)
            stream.send(Op.CREDIT_UPDATE)
    return data


def guest_writes(stream: Stream, data: bytes) -> None:
    """The guest writes as much as its credit allows, then waits for more of it."""
    while data:
        while not stream.credit:
            stream.receive()
        piece = data[: min(stream.credit, 4096)]
        stream.send(Op.RW, piece)
        data = data[len(piece) :]


def ended(client: socket.socket) -> bool:
    """Whether the connection is over; what the back end left unread makes that a reset."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def end_of_input(stream: Stream) -> int:
    """The flags of the SHUTDOWN that comes next."""
    while (packet := stream.receive()).op != Op.SHUTDOWN:
        assert packet.op == Op.CREDIT_REQUEST
    return packet.header.flags


def quiet(driver: Driver) -> bool:
    try:
        packet = driver.receive(QUIET)
    except TimeoutError:
        return True
    raise AssertionError(f"unexpected packet {packet.header}")


def test_connect_is_answered_with_the_host_port(backend: Backend, driver: Driver) -> None:
    client, stream = backend.open(driver, 1024)
    assert stream.host_port >= 1 << 30
    client.close()


def test_bytes_behind_the_connect_line_reach_the_guest(backend: Backend, driver: Driver) -> None:
    client = backend.client(b"CONNECT 1024\nfirst")
    stream = accept(driver, 1024)
    assert stream.receive().payload == b"first"
    client.close()


def test_a_connect_line_may_come_in_pieces(backend: Backend, driver: Driver) -> None:
    client = backend.client(b"CONN")
    client.sendall(b"ECT 10")
    client.sendall(b"24\r\n")
    stream = accept(driver, 1024)
    assert read_line(client) == b"OK %d\n" % stream.host_port


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"HELLO 1024\n",
        b"CONNECT\n",
        b"CONNECT -1\n",
        b"CONNECT 4294967296\n",
        b"CONNECT 1 2\n",
        b"CONNECT " + b"0" * 40,
    ],
)
def test_a_bad_connect_line_closes_the_connection(
    backend: Backend, driver: Driver, line: bytes
) -> None:
    assert ended(backend.client(line))
    assert quiet(driver)


def test_a_client_that_leaves_within_its_line_is_forgotten(
    backend: Backend, driver: Driver
) -> None:
    before = backend.open_descriptors()
    backend.client(b"CONN").close()
    backend.open(driver, 1)[0].close()
    driver.receive()
    assert backend.open_descriptors() == before


def test_a_port_nobody_listens_on_closes_the_client(backend: Backend, driver: Driver) -> None:
    client = backend.client(b"CONNECT 9\n")
    request = driver.receive()
    Stream(driver, request.header.src_port, 9, 0).send(Op.RST)
    assert client.recv(1) == b""


def test_without_a_guest_the_client_is_closed(backend: Backend) -> None:
    assert backend.client(b"CONNECT 1024\n").recv(1) == b""


def test_a_client_that_gives_up_before_the_answer_is_reset(
    backend: Backend, driver: Driver
) -> None:
    client = backend.client(b"CONNECT 1024\n")
    assert driver.receive().op == Op.REQUEST
    client.close()
    assert driver.receive().op == Op.RST


def test_the_guest_reaches_a_socket_named_after_the_port(backend: Backend, driver: Driver) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{backend.uds}_700")
        listener.listen()
        listener.settimeout(IN_PROCESS)
        stream = Stream(driver, 700, 5000, 65536)
        stream.send(Op.REQUEST)
        assert stream.receive().op == Op.RESPONSE
        peer, _address = listener.accept()
        stream.send(Op.RW, b"from the guest")
        assert peer.recv(100) == b"from the guest"
        peer.sendall(b"from the host")
        assert stream.receive().payload == b"from the host"


def test_the_guest_is_refused_where_nobody_listens(backend: Backend, driver: Driver) -> None:
    stream = Stream(driver, 701, 5000, 65536)
    stream.send(Op.REQUEST)
    assert stream.receive().op == Op.RST


def test_more_than_the_guests_buffer_flows_to_the_guest(backend: Backend, driver: Driver) -> None:
    client, stream = backend.open(driver, 1024, space=10_000)
    data = pattern(100_000)
    client.sendall(data)
    assert guest_reads(stream, len(data)) == data


def test_the_guest_gets_no_byte_beyond_its_credit(backend: Backend, driver: Driver) -> None:
    client, stream = backend.open(driver, 1024, space=10_000)
    client.sendall(pattern(20_000))
    received = b""
    while len(received) < 10_000:
        received += stream.receive().payload
    assert received == pattern(20_000)[:10_000]
    assert stream.receive().op == Op.CREDIT_REQUEST
    stream.send(Op.CREDIT_UPDATE)
    assert quiet(driver)
    stream.taken = 10_000
    stream.send(Op.CREDIT_UPDATE)
    received = b""
    while len(received) < 10_000:
        received += stream.receive().payload
    assert received == pattern(20_000)[10_000:]
    client.sendall(b"more")
    assert stream.receive().op == Op.CREDIT_REQUEST


def test_a_client_is_held_back_while_the_guest_does_not_read(
    backend: Backend, driver: Driver
) -> None:
    client, stream = backend.open(driver, 1024, space=4096)
    client.settimeout(QUIET)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 64 << 20:
            sent += client.send(bytes(65536))
    assert sent < 64 << 20
    client.shutdown(socket.SHUT_WR)
    assert guest_reads(stream, sent) == bytes(sent)


def test_more_than_the_hosts_buffer_flows_to_the_client(backend: Backend, driver: Driver) -> None:
    client, stream = backend.open(driver, 1024)
    data = pattern(4 * BUFFER_SIZE)
    child = os.fork()
    if child == 0:
        received = b""
        while len(received) < len(data):
            received += client.recv(65536)
        os._exit(0 if received == data else 1)
    guest_writes(stream, data)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_guest_is_held_back_while_the_client_does_not_read(
    backend: Backend, driver: Driver
) -> None:
    client, stream = backend.open(driver, 1024)
    sent = 0
    while True:
        while stream.credit:
            stream.send(Op.RW, bytes(min(stream.credit, 4096)))
            sent = stream.sent
        try:
            stream.receive(QUIET)
        except TimeoutError:
            break
    assert sent < 64 << 20
    stream.send(Op.SHUTDOWN, flags=SHUTDOWN_SEND)
    assert len(read_all(client)) == sent


def test_a_credit_request_is_answered(backend: Backend, driver: Driver) -> None:
    _client, stream = backend.open(driver, 1024)
    stream.send(Op.RW, b"12345")
    stream.send(Op.CREDIT_REQUEST)
    assert stream.receive().op == Op.CREDIT_UPDATE
    assert (stream.peer_space, stream.peer_taken) == (BUFFER_SIZE, 5)


def test_a_guest_that_ignores_its_credit_is_reset(backend: Backend, driver: Driver) -> None:
    client, stream = backend.open(driver, 1024)
    while True:
        stream.send(Op.RW, bytes(65536))
        try:
            if stream.receive(0.05).op == Op.RST:
                break
        except TimeoutError:
            pass
        assert stream.sent < 64 << 20
    assert len(read_all(client)) <= stream.sent - 65536


def test_the_end_of_the_clients_input_leaves_the_other_direction_open(
    backend: Backend, driver: Driver
) -> None:
    client, stream = backend.open(driver, 1024)
    client.sendall(b"last")
    client.shutdown(socket.SHUT_WR)
    assert stream.receive().payload == b"last"
    assert end_of_input(stream) == SHUTDOWN_SEND
    stream.send(Op.RW, b"answer")
    stream.send(Op.SHUTDOWN, flags=SHUTDOWN_BOTH)
    assert read_all(client) == b"answer"
    assert stream.receive().op == Op.RST


def test_the_end_of_the_guests_output_leaves_the_other_direction_open(
    backend: Backend, driver: Driver
) -> None:
    client, stream = backend.open(driver, 1024)
    stream.send(Op.RW, b"last")
    stream.send(Op.SHUTDOWN, flags=SHUTDOWN_SEND)
    assert read_all(client) == b"last"
    client.sendall(b"answer")
    assert stream.receive().payload == b"answer"
    client.close()
    assert end_of_input(stream) == SHUTDOWN_BOTH


def test_a_client_that_closes_has_its_bytes_delivered_first(
    backend: Backend, driver: Driver
) -> None:
    client, stream = backend.open(driver, 1024, space=10_000)
    data = pattern(50_000)
    client.sendall(data)
    client.close()
    assert guest_reads(stream, len(data)) == data
    assert end_of_input(stream) == SHUTDOWN_BOTH


def test_a_client_that_leaves_without_reading_still_has_its_bytes_delivered(
    backend: Backend, driver: Driver
) -> None:
    client, stream = backend.open(driver, 1024, space=4096)
    data = pattern(20_000)
    client.sendall(data)
    stream.send(Op.RW, b"nobody reads this")
    client.close()
    stream.send(Op.RW, b"nor this")
    assert guest_reads(stream, len(data)) == data


def test_a_guest_that_no_longer_receives_stops_the_client(backend: Backend, driver: Driver) -> None:
    client, stream = backend.open(driver, 1024)
    stream.send(Op.SHUTDOWN, flags=SHUTDOWN_RECEIVE)
    stream.send(Op.CREDIT_REQUEST)
    assert stream.receive().op == Op.CREDIT_UPDATE
    with pytest.raises(BrokenPipeError):
        client.sendall(b"x")
    stream.send(Op.RW, b"still")
    assert client.recv(10) == b"still"


@pytest.mark.parametrize(
    ("op", "flags"), [(Op.RST, 0), (Op.SHUTDOWN, SHUTDOWN_BOTH)], ids=["reset", "shutdown"]
)
def test_bytes_sent_before_the_guests_end_are_delivered(
    backend: Backend, driver: Driver, op: Op, flags: int
) -> None:
    client, stream = backend.open(driver, 1024)
    # More than the client's socket takes: a part of it is in the back end when the guest goes.
    while stream.credit:
        stream.send(Op.RW, pattern(4096))
    stream.send(op, flags=flags)
    assert read_all(client) == pattern(4096) * (BUFFER_SIZE // 4096)


def test_a_payload_may_be_scattered_over_descriptors(backend: Backend, driver: Driver) -> None:
    client, stream = backend.open(driver, 1024)
    stream.send(Op.RW, pattern(1000), pieces=9)
    stream.send(Op.SHUTDOWN, flags=SHUTDOWN_SEND)
    assert read_all(client) == pattern(1000)


def test_connections_do_not_wait_for_one_whose_guest_side_is_stuck(
    backend: Backend, driver: Driver
) -> None:
    stuck, _stream = backend.open(driver, 1, space=0)
    stuck.sendall(b"waits")
    client, other = backend.open(driver, 2)
    client.sendall(b"passes")
    while not (packet := driver.receive()).payload:
        assert packet.op == Op.CREDIT_REQUEST
    assert packet.header.dst_port == other.guest_port
    assert packet.payload == b"passes"


def test_300_connections_leave_no_descriptor(backend: Backend, driver: Driver) -> None:
    backend.open(driver, 1)[0].close()
    driver.receive()
    before = backend.open_descriptors()
    for number in range(300):
        client, stream = backend.open(driver, 1024)
        client.sendall(b"ping")
        assert stream.receive().payload == b"ping"
        if number % 3 == 0:
            stream.send(Op.SHUTDOWN, flags=SHUTDOWN_BOTH)
            assert stream.receive().op == Op.RST
            client.close()
        elif number % 3 == 1:
            stream.send(Op.RST)
            client.close()
        else:
            client.close()
            assert stream.receive().op == Op.SHUTDOWN
            stream.send(Op.RST)
    assert backend.open_descriptors() == before


def foreign(**fields: int) -> Header:
    """A packet of no connection, otherwise in order."""
    header = Header(GUEST_CID, 2, 5, 6, 0, 1, Op.RW, 0, 0, 0)
    return header._replace(**fields)


@pytest.mark.parametrize(
    "header",
    [
        foreign(),
        foreign(op=99),
        foreign(op=Op.REQUEST, type=2),
        foreign(op=Op.REQUEST, dst_cid=7),
        foreign(op=Op.REQUEST, src_cid=7),
    ],
)
def test_a_packet_of_no_connection_is_answered_with_a_reset(
    backend: Backend, driver: Driver, header: Header
) -> None:
    driver.send(header)
    answer = driver.receive().header
    assert (answer.op, answer.src_port, answer.dst_port) == (Op.RST, 6, 5)


def test_a_reset_of_no_connection_is_not_answered(backend: Backend, driver: Driver) -> None:
    driver.send(foreign(op=Op.RST))
    assert quiet(driver)


@pytest.mark.parametrize("op", [0, Op.REQUEST, Op.RESPONSE, 99])
def test_an_operation_out_of_place_resets_the_connection(
    backend: Backend, driver: Driver, op: int
) -> None:
    client, stream = backend.open(driver, 1024)
    driver.send(foreign(op=op, src_port=1024, dst_port=stream.host_port))
    assert driver.receive().op == Op.RST
    assert client.recv(1) == b""


@pytest.mark.parametrize("length", [5, 0xFFFFFFFF])
def test_a_length_beyond_the_payload_resets_the_connection(
    backend: Backend, driver: Driver, length: int
) -> None:
    _client, stream = backend.open(driver, 1024)
    header = foreign(src_port=1024, dst_port=stream.host_port, length=length)
    driver.send(header, b"four")
    assert driver.receive().op == Op.RST


def test_a_packet_shorter_than_a_header_is_ignored(backend: Backend, driver: Driver) -> None:
    driver.send_raw([(0, 43)])
    driver.send_raw([(0, 0)])
    backend.open(driver, 1024)


def test_a_flood_of_strays_is_not_buffered_without_bound(backend: Backend) -> None:
    guest = Driver(backend.vhost, receive_buffers=0)
    answered = 0
    while answered < 100_000:
        ring = guest.rings[1]
        guest.memory[2 << 20 : (2 << 20) + 44] = foreign().pack()
        ring.set_descriptor(0, 0x4000_0000 + (2 << 20), 44, 0, 0)
        ring.offer(0)
        if ring.take_used(QUIET) is None:
            break
        answered += 1
    assert answered <= 2048
    guest.close()


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    backend = Backend(directory)
    try:
        assert backend.uds.is_socket()
        backend.stop()
        assert not backend.uds.exists()
    finally:
        backend.process.kill()
        backend.process.wait()
