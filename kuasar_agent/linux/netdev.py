"""Counters of the network interfaces (/proc/net/dev, proc(5))."""

from __future__ import annotations

from typing import NamedTuple

from kuasar_agent.linux.files import read_text

# Eight columns in each direction: bytes, packets, errs, drop and four that are not used.
_COLUMNS = 16


class Counters(NamedTuple):
    """The traffic of an interface since it was made."""

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
    """Return every interface of /proc/net/dev, in its order, except `lo`."""
    found = []
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        values = rest.split()
        if colon and len(values) >= _COLUMNS and name.strip() != "lo":
            numbers = map(int, (*values[0:4], *values[8:12]))
            found.append(Counters(name.strip(), *numbers))
    return found


def counters(path: str = "/proc/self/net/dev") -> list[Counters]:
    """Return the interfaces of this network namespace. Raises OSError."""
    return parse(read_text(path))
