"""The vhost-user side of the vsock back end: rings, and front ends that come, go or misbehave."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from pathlib import Path

import pytest

from kuasar_host.vsock.packet import Op
from kuasar_host.vsock.vhost_user import Request
from tests.support.timeouts import IN_PROCESS
from tests.support.vsock.backend import Backend, read_all
from tests.support.vsock.driver import GUEST_CID, QUEUE_SIZE, RX, TX, Driver

BASE = 0x4000_0000
WRITE, NEXT, INDIRECT = 2, 1, 4
QUIET = 0.2


def error_signalled(driver: Driver, index: int) -> bool:
    ready, _, _ = select.select([driver.rings[index].error], [], [], IN_PROCESS)
    return bool(ready)


def reboot(driver: Driver) -> None:
    driver.stop()
    driver.start()


def test_the_configuration_space_holds_the_cid(backend: Backend, driver: Driver) -> None:
    body = struct.pack("<III", 0, 8, 0) + bytes(8)
    reply = driver.ask(Request.GET_CONFIG, body)
    assert reply == struct.pack("<IIIQ", 0, 8, 0, GUEST_CID)


def test_an_unknown_request_is_refused_when_a_reply_is_wanted(
    backend: Backend, driver: Driver
) -> None:
    driver.tell(200, b"whatever")
    assert driver.ask(201, b"whatever", flags=1 | 8) == struct.pack("<Q", 1)
    backend.open(driver, 1024)


def test_a_known_request_is_acknowledged_when_a_reply_is_wanted(
    backend: Backend, driver: Driver
) -> None:
    assert driver.ask(Request.SET_OWNER, flags=1 | 8) == struct.pack("<Q", 0)


def test_descriptors_with_a_request_that_takes_none_are_closed(
    backend: Backend, driver: Driver
) -> None:
    before = backend.open_descriptors()
    for _ in range(20):
        driver.tell(Request.SET_OWNER, b"", [0, 1, 2])
        driver.tell(222, b"1234", [0, 1, 2])
    driver.sync()
    assert backend.open_descriptors() == before


def test_a_message_may_come_byte_by_byte(backend: Backend, driver: Driver) -> None:
    for byte in struct.pack("<III", Request.SET_OWNER, 1, 0):
        driver.socket.sendall(bytes([byte]))
    backend.open(driver, 1024)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def table(*, count: int = 1, size: int = 4 << 20, offset: int = 0) -> bytes:
    return struct.pack("<IIQQQQ", count, 0, BASE, size, 0x7F00_0000_0000, offset)


@pytest.mark.parametrize(
    ("request_number", "body", "descriptors"),
    [
        (Request.SET_OWNER, b"x" * 5000, 0),
        (Request.SET_VRING_NUM, b"short", 0),
        (Request.SET_VRING_NUM, struct.pack("<II", 7, 128), 0),
        (Request.SET_VRING_NUM, struct.pack("<II", 0, 100), 0),
        (Request.SET_VRING_NUM, struct.pack("<II", 0, 0), 0),
        (Request.SET_VRING_NUM, struct.pack("<II", 0, 65536), 0),
        (Request.GET_VRING_BASE, struct.pack("<II", 9, 0), 0),
        (Request.SET_VRING_ADDR, bytes(8), 0),
        (Request.SET_VRING_KICK, u64(0), 0),
        (Request.SET_VRING_KICK, u64(0x100), 0),
        (Request.SET_VRING_KICK, u64(5), 1),
        (Request.SET_VRING_CALL, u64(0), 2),
        (Request.SET_MEM_TABLE, table(), 0),
        (Request.SET_MEM_TABLE, table(count=3), 1),
        (Request.SET_MEM_TABLE, table(size=0), 1),
        (Request.SET_MEM_TABLE, table(size=1 << 40), 1),
        (Request.SET_MEM_TABLE, table(size=1 << 63), 1),
        (Request.SET_MEM_TABLE, table(offset=(1 << 64) - 1), 1),
        (Request.GET_CONFIG, struct.pack("<III", 0, 1 << 31, 0), 0),
    ],
)
def test_a_malformed_request_costs_the_front_end_its_connection_only(
    backend: Backend, tmp_path: Path, request_number: int, body: bytes, descriptors: int
) -> None:
    clean = backend.open_descriptors()
    first = Driver(backend.vhost)
    with (tmp_path / "file").open("wb") as file:
        first.tell(request_number, body, [file.fileno()] * descriptors)
        first.wait_gone()
    first.close()
    second = Driver(backend.vhost)
    backend.open(second, 1024)[0].close()
    assert second.receive().op == Op.SHUTDOWN
    second.close()
    wait_for_descriptors(backend, clean)


def test_a_kick_descriptor_that_cannot_be_waited_for_is_refused(
    backend: Backend, driver: Driver, tmp_path: Path
) -> None:
    with (tmp_path / "file").open("wb") as file:
        driver.tell(Request.SET_VRING_KICK, u64(0), [file.fileno()])
        driver.wait_gone()


def test_a_ring_outside_the_shared_memory_is_refused(backend: Backend, driver: Driver) -> None:
    driver.ask(Request.GET_VRING_BASE, struct.pack("<II", 0, 0))
    addresses = struct.pack("<IIQQQQ", 0, 0, 1 << 60, 1 << 60, 1 << 60, 0)
    driver.tell(Request.SET_VRING_ADDR, addresses)
    driver.tell(Request.SET_VRING_KICK, u64(0), [driver.rings[0].kick])
    driver.wait_gone()


@pytest.mark.parametrize(
    ("address", "size", "flags", "link"),
    [
        (0, 44, 0, 0),
        (BASE + (4 << 20) - 10, 44, 0, 0),
        ((1 << 64) - 1, 0xFFFFFFFF, 0, 0),
        (BASE, 44, NEXT, 0),
        (BASE, 44, NEXT, QUEUE_SIZE),
        (BASE, 16, INDIRECT, 0),
    ],
    ids=["below", "across the end", "overflow", "loop", "next out of range", "indirect"],
)
def test_a_bad_descriptor_stops_the_device_until_it_is_reset(
    backend: Backend, driver: Driver, address: int, size: int, flags: int, link: int
) -> None:
    client, _stream = backend.open(driver, 1024)
    driver.rings[TX].set_descriptor(0, address, size, flags, link)
    driver.rings[TX].offer(0)
    assert error_signalled(driver, TX)
    assert client.recv(1) == b""
    reboot(driver)
    backend.open(driver, 1024)


def test_a_head_out_of_range_stops_the_device_until_it_is_reset(
    backend: Backend, driver: Driver
) -> None:
    driver.rings[TX].offer(QUEUE_SIZE)
    assert error_signalled(driver, TX)
    reboot(driver)
    backend.open(driver, 1024)


def test_an_index_that_runs_away_stops_the_device_until_it_is_reset(
    backend: Backend, driver: Driver
) -> None:
    # Every entry leads to a descriptor that is in order: only the distance is wrong.
    driver.rings[TX].set_descriptor(0, BASE + (1 << 20), 44, 0, 0)
    driver.rings[TX].available[1] = QUEUE_SIZE + 1
    os.eventfd_write(driver.rings[TX].kick, 1)
    assert error_signalled(driver, TX)
    reboot(driver)
    backend.open(driver, 1024)


def test_a_receive_buffer_without_room_for_a_header_stops_the_device_until_it_is_reset(
    backend: Backend,
) -> None:
    driver = Driver(backend.vhost, receive_buffers=0)
    driver.rings[RX].set_descriptor(0, BASE + (1 << 20), 43, WRITE, 0)
    driver.rings[RX].offer(0)
    assert backend.client(b"CONNECT 1\n").recv(1) == b""
    assert error_signalled(driver, RX)
    reboot(driver)
    backend.open(driver, 1024)
    driver.close()


def test_a_read_only_receive_buffer_stops_the_device(backend: Backend) -> None:
    driver = Driver(backend.vhost, receive_buffers=0)
    driver.rings[RX].set_descriptor(0, BASE + (1 << 20), 4096, 0, 0)
    driver.rings[RX].offer(0)
    assert backend.client(b"CONNECT 1\n").recv(1) == b""
    assert error_signalled(driver, RX)
    driver.close()


def test_a_reboot_of_the_guest_ends_its_connections_and_new_ones_work(
    backend: Backend, driver: Driver
) -> None:
    for _ in range(5):
        client, stream = backend.open(driver, 1024)
        stream.send(Op.RW, b"last words")
        reboot(driver)
        assert read_all(client) == b"last words"
    backend.open(driver, 1024)


def test_what_the_guest_wrote_just_before_it_stopped_is_delivered(
    backend: Backend, driver: Driver
) -> None:
    client, stream = backend.open(driver, 1024)
    # Offered without a kick: nothing but the stop makes the back end look.
    driver.rings[TX].quiet = True
    stream.post(Op.RW, b"last words")
    driver.stop()
    assert read_all(client) == b"last words"
    driver.start()


def test_a_stopped_ring_reports_where_it_stopped(backend: Backend, driver: Driver) -> None:
    _client, stream = backend.open(driver, 1024)
    stream.send(Op.RW, b"x")
    reply = driver.ask(Request.GET_VRING_BASE, struct.pack("<II", TX, 0))
    assert reply == struct.pack("<II", TX, 2)
    reboot(driver)


def test_a_new_front_end_is_served_after_the_first_has_gone(backend: Backend) -> None:
    clean = backend.open_descriptors()
    for _ in range(5):
        driver = Driver(backend.vhost)
        client, _stream = backend.open(driver, 1024)
        driver.close()
        assert client.recv(1) == b""
        client.close()
    wait_for_descriptors(backend, clean)


def test_a_second_front_end_waits_for_the_first_to_go(backend: Backend, driver: Driver) -> None:
    waiting = socket.socket(socket.AF_UNIX)
    waiting.settimeout(QUIET)
    waiting.connect(os.fspath(backend.vhost))
    waiting.sendall(struct.pack("<III", Request.GET_FEATURES, 1, 0))
    with pytest.raises(TimeoutError):
        waiting.recv(1)
    driver.socket.close()
    waiting.settimeout(IN_PROCESS)
    assert len(waiting.recv(100)) == 20
    waiting.close()


def test_connections_survive_a_new_memory_table(backend: Backend, driver: Driver) -> None:
    client, stream = backend.open(driver, 1024)
    driver.set_memory()
    driver.sync()
    client.sendall(b"still here")
    assert stream.receive().payload == b"still here"


def test_a_disabled_ring_rests_until_it_is_enabled(backend: Backend, driver: Driver) -> None:
    for enable in (0, 1):
        driver.tell(Request.SET_VRING_ENABLE, struct.pack("<II", RX, enable))
        driver.sync()
        if not enable:
            assert backend.client(b"CONNECT 1\n").recv(1) == b""
    backend.open(driver, 1024)


def test_no_interrupt_is_raised_for_a_driver_that_wants_none(
    backend: Backend, driver: Driver
) -> None:
    ring = driver.rings[RX]
    ring.available[0] = 1
    ring.polled = True
    client, stream = backend.open(driver, 1024)
    client.sendall(b"silent")
    assert stream.receive().payload == b"silent"
    with pytest.raises(BlockingIOError):
        os.eventfd_read(ring.call)


def wait_for_descriptors(backend: Backend, count: int) -> None:
    """A front end's end is noticed a moment later; a client's connection is ordered after it."""
    end = time.monotonic() + IN_PROCESS
    while backend.open_descriptors() != count:
        assert time.monotonic() < end
        assert backend.client(b"CONNECT 1\n").recv(1) == b""
