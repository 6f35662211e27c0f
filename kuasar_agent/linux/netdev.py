"""Counters of the network interfaces (/proc/net/dev, proc(5))."""

from __future__ import annotations

from typing import NamedTuple

from kuasar_agent.linux.files import read_text

# The columns of either direction: bytes packets errs drop, then four of no interest here.
_COLUMNS = 16


class Counters(NamedTuple):
    """What an interface received and sent since it was made."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def parse(text: str) -> list[Counters]:
    """Every interface of /proc/net/dev, in its order, except `lo`."""
    found = []
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        values = rest.split()
        if colon and len(values) >= _COLUMNS and name.strip() != "lo":
            numbers = map(int, (*values[0:4], *values[8:12]))
            found.append(Counters(name.strip(), *numbers))
    return found


def counters(path: str = "/proc/self/net/dev") -> list[Counters]:
    """The interfaces of this network namespace; OSError."""
    return parse(read_text(path))
