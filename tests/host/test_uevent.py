"""Events as this host's kernel sends them; a write to a device's `uevent` makes one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import gevent
import pytest

from kuasar_agent.devices import Device, Devices
from kuasar_agent.linux.uevent import Overrun, Uevent, UeventSocket
from tests.support.timeouts import IN_PROCESS

LO = Path("/sys/class/net/lo/uevent")


@pytest.fixture
def events() -> Iterator[UeventSocket]:
    with closing(UeventSocket()) as events:
        yield events


def of_lo(events: UeventSocket) -> list[Uevent]:
    """What arrived of `lo`: other devices of the host may speak too."""
    found = []
    while (event := events.receive()) is not None:
        if event.devpath.endswith("/net/lo"):
            found.append(event)
    return found


def test_an_event_arrives_once_it_happened(events: UeventSocket) -> None:
    assert of_lo(events) == []
    LO.write_text("change")
    (event,) = of_lo(events)
    assert (event.action, event.devpath, event.subsystem) == (
        "change",
        "/devices/virtual/net/lo",
        "net",
    )
    assert event.properties["INTERFACE"] == "lo"


def test_a_message_of_another_process_is_not_believed(events: UeventSocket) -> None:
    forged = b"remove@/devices/virtual/net/lo\0ACTION=remove\0DEVPATH=/devices/virtual/net/lo\0"
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)) as sender:
        sender.bind((0, 0))
        sender.sendto(forged, (os.getpid(), 0))
        sender.sendto(forged, (0, 1))
    LO.write_text("change")
    assert [event.action for event in of_lo(events)] == ["change"]


def test_lost_events_are_reported_and_later_ones_arrive(events: UeventSocket) -> None:
    with LO.open("wb", buffering=0) as file:
        for _ in range(20_000):
            file.write(b"change")
    with pytest.raises(Overrun):
        of_lo(events)
    of_lo(events)
    LO.write_text("change")
    assert len(of_lo(events)) == 1


def test_devices_follow_the_kernel() -> None:
    devices = Devices()
    devices.start()
    seen: list[Uevent] = []
    devices.watch(seen.append)
    lo = Device("/devices/virtual/net/lo", "net", "lo")
    assert lo in devices.list("net")
    calls = 0

    def probe() -> bool | None:
        nonlocal calls
        calls += 1
        return any(event.devpath == lo.devpath for event in seen) or None

    waiting = gevent.spawn(devices.wait_until, probe, "an event", monotonic() + IN_PROCESS)
    gevent.idle()
    LO.write_text("change")
    assert waiting.get(timeout=IN_PROCESS)
    assert calls >= 2
    LO.write_text("remove")
    assert lo not in devices.list("net")
    LO.write_text("add")
    assert lo in devices.list("net")


def test_devices_read_sysfs_again_when_events_were_lost() -> None:
    devices = Devices()
    devices.start()
    devices.list("net")
    LO.write_text("remove")
    assert [device.name for device in devices.list("net")].count("lo") == 0
    with LO.open("wb", buffering=0) as file:
        for _ in range(20_000):
            file.write(b"change")
    assert [device.name for device in devices.list("net")].count("lo") == 1
