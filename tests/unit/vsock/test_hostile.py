"""Garbage from the guest or from the front end never ends the vsock back end."""

from __future__ import annotations

import contextlib
import random
import struct

import pytest

from kuasar_host.vsock.packet import Header
from kuasar_host.vsock.vhost_user import Request
from tests.support.vsock.backend import Backend
from tests.support.vsock.driver import GUEST_CID, QUEUE_SIZE, TX, Driver

MASK64 = (1 << 64) - 1


def test_random_packets(backend: Backend, driver: Driver) -> None:
    chance = random.Random(1)
    _client, stream = backend.open(driver, 1024)
    for _ in range(3000):
        header = Header(
            chance.choice((GUEST_CID, GUEST_CID, 2, MASK64)),
            chance.choice((2, 2, 3, 0)),
            chance.choice((1024, 1024, 7)),
            chance.choice((stream.host_port, stream.host_port, 9)),
            chance.choice((0, 3, 100, 0xFFFFFFFF)),
            chance.choice((1, 1, 2, 0xFFFF)),
            chance.randrange(10),
            chance.choice((0, 1, 2, 3, 0xFFFFFFFF)),
            chance.choice((0, 1, 0xFFFFFFFF)),
            chance.choice((0, 1, 0xFFFFFFFF)),
        )
        driver.send(header, chance.randbytes(chance.choice((0, 3, 100))), chance.randint(1, 4))
        if chance.random() < 0.3:
            with contextlib.suppress(TimeoutError):
                while driver.receive(0):
                    pass
    driver.stop()
    driver.start()
    backend.open(driver, 1024)


@pytest.mark.parametrize("seed", range(20))
def test_random_rings(backend: Backend, driver: Driver, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(10):
        for ring in driver.rings:
            for index in range(QUEUE_SIZE):
                address = chance.choice((0x4000_0000, 0x403F_FFFF, MASK64)) + chance.randrange(100)
                size = chance.choice((0, 44, 100, 4096, 0xFFFFFFFF))
                flags, link = chance.randrange(8), chance.randrange(QUEUE_SIZE + 2)
                ring.set_descriptor(index, address & MASK64, size, flags, link)
            for _ in range(chance.randrange(5)):
                ring.offer(chance.randrange(QUEUE_SIZE + 1))
        driver.sync()
        backend.client(b"CONNECT 1\n").close()
        driver.stop()
        driver.start()
    backend.open(driver, 1024)


@pytest.mark.parametrize("seed", range(20))
def test_random_messages(backend: Backend, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(5):
        driver = Driver(backend.vhost)
        with contextlib.suppress(OSError):
            for _ in range(10):
                body = struct.pack("<II", chance.randrange(3), chance.choice((0, 1, 64, 1 << 31)))
                body += chance.randbytes(chance.choice((0, 0, 32)))
                fds = [driver.rings[TX].kick] * chance.choice((0, 1, 1, 2))
                driver.tell(chance.randrange(1, 30), body, fds)
        driver.close()
    driver = Driver(backend.vhost)
    assert len(driver.ask(Request.GET_FEATURES)) == 8
    backend.open(driver, 1024)
    driver.close()
