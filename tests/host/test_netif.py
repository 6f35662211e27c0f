"""Interface flags in a network namespace of the test's own."""

from __future__ import annotations

import errno
import socket

import pytest

from kuasar_agent.linux import netif, syscalls
from tests.support.isolation import isolated


def send_to_self() -> int | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(b"x", ("127.0.0.1", 9))
        except OSError as error:
            return error.errno
    return None


def test_loopback_carries_packets_once_it_is_up() -> None:
    def body() -> list[int | None]:
        before = send_to_self()
        netif.set_up("lo")
        netif.set_up("lo")
        return [before, send_to_self()]

    assert isolated(body, syscalls.CLONE_NEWNET) == [errno.ENETUNREACH, None]


def test_an_unknown_interface_is_named_in_the_error() -> None:
    with pytest.raises(OSError, match="No such device: 'absent0'"):
        netif.set_up("absent0")
