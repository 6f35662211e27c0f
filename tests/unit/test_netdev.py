"""The interfaces' counters."""

from __future__ import annotations

from kuasar_agent.linux.netdev import Counters, counters, parse

TEXT = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:    1000      10    0    0    0     0          0         0     1000      10    0    0    0 \
0 0 0
  eth0:   12345     100    1    2    3     4          5         6    67890     200    7    8    9 \
10 11 12
eth1.5:123 1 0 0 0 0 0 0 456 2 0 0 0 0 0 0
torn: 1 2 3
"""


def test_every_interface_but_lo_is_counted() -> None:
    assert parse(TEXT) == [
        Counters("eth0", 12345, 100, 1, 2, 67890, 200, 7, 8),
        Counters("eth1.5", 123, 1, 0, 0, 456, 2, 0, 0),
    ]


def test_this_machine_can_be_read() -> None:
    assert "lo" not in [entry.name for entry in counters()]
