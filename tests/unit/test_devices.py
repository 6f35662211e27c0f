"""The table of devices, fed with events and with a tree like that of /sys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import gevent
import pytest

from kuasar_agent.devices import Device, Devices
from kuasar_agent.errors import DeadlineExceeded
from kuasar_agent.linux.uevent import Uevent
from tests.support.timeouts import IN_PROCESS

DISK = "/devices/pci0000:00/0000:00:06.0/virtio3/block/vda"
OTHER = "/devices/pci0000:00/0000:00:07.0/virtio4/block/vdb"


def event(action: str, devpath: str, subsystem: str = "block", **properties: str) -> Uevent:
    return Uevent(action, devpath, subsystem, properties)


def make_device(sysfs: Path, devpath: str, subsystem: str) -> None:
    directory = sysfs / devpath.lstrip("/")
    directory.mkdir(parents=True)
    name = directory.name
    (directory / "uevent").write_text(f"MAJOR=254\nDEVNAME={name}\n")
    links = sysfs / "class" / subsystem
    links.mkdir(parents=True, exist_ok=True)
    (links / name).symlink_to(directory)


class Quiet(Devices):
    """Fed by hand: it listens to no kernel, and looks at its tree once."""

    def _catch_up(self) -> None:
        if self._stale:
            self._scan()


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Devices]:
    devices = Quiet(str(tmp_path))
    assert devices.list("block") == []
    yield devices
    assert devices._waiters == set()


def paths(devices: Devices) -> list[str]:
    return [device.devpath for device in devices.list("block")]


def wait_for(devices: Devices, devpath: str, seconds: float = IN_PROCESS) -> Device:
    return devices.wait_for(
        "block", lambda device: device.devpath == devpath, "the disk", monotonic() + seconds
    )


def test_what_is_there_before_the_first_event_is_found(tmp_path: Path) -> None:
    devices = Quiet(str(tmp_path))
    make_device(tmp_path, DISK, "block")
    make_device(tmp_path, f"{DISK}/vda1", "block")
    make_device(tmp_path, "/devices/virtual/net/lo", "net")
    assert paths(devices) == [DISK, f"{DISK}/vda1"]
    assert [device.name for device in devices.list("net")] == ["lo"]
    assert wait_for(devices, DISK) == Device(DISK, "block", "vda")


def test_a_device_is_added_and_removed(devices: Devices) -> None:
    devices.apply(event("add", DISK, DEVNAME="vda"))
    assert devices.list("block") == [Device(DISK, "block", "vda")]
    assert devices.list("block")[0].node == "/dev/vda"
    devices.apply(event("remove", DISK))
    assert devices.list("block") == []
    devices.apply(event("remove", DISK))
    assert devices.list("block") == []


def test_events_already_seen_by_the_scan_do_no_harm(tmp_path: Path) -> None:
    devices = Quiet(str(tmp_path))
    make_device(tmp_path, DISK, "block")
    assert paths(devices) == [DISK]
    for action in ("add", "remove", "add"):
        devices.apply(event(action, DISK, DEVNAME="vda"))
    assert paths(devices) == [DISK]


def test_a_slot_used_again_holds_the_new_disk(devices: Devices) -> None:
    devices.apply(event("add", DISK, DEVNAME="vda"))
    devices.apply(event("add", OTHER, DEVNAME="vdb"))
    devices.apply(event("remove", DISK))
    again = DISK.replace("virtio3/block/vda", "virtio9/block/vdc")
    devices.apply(event("add", again, DEVNAME="vdc"))
    assert paths(devices) == [OTHER, again]


def test_a_renamed_interface_keeps_one_entry(devices: Devices) -> None:
    devices.apply(event("add", "/devices/v/net/eth0", "net"))
    moved = event("move", "/devices/v/net/pod0", "net", DEVPATH_OLD="/devices/v/net/eth0")
    devices.apply(moved)
    assert [device.name for device in devices.list("net")] == ["pod0"]


def test_events_of_other_subsystems_make_no_device_but_are_watched(devices: Devices) -> None:
    seen: list[Uevent] = []
    devices.watch(seen.append)
    devices.apply(event("add", "/devices/system/cpu/cpu1", "cpu"))
    assert [entry.subsystem for entry in seen] == ["cpu"]
    assert all(devices.list(kind) == [] for kind in ("block", "net", "cpu"))


def test_a_waiter_gets_the_device_that_comes_late(devices: Devices) -> None:
    waiting = [gevent.spawn(wait_for, devices, DISK) for _ in range(3)]
    gevent.idle()
    devices.apply(event("add", OTHER, DEVNAME="vdb"))
    gevent.idle()
    assert not any(greenlet.dead for greenlet in waiting)
    devices.apply(event("add", DISK, DEVNAME="vda"))
    assert {greenlet.get(timeout=IN_PROCESS).name for greenlet in waiting} == {"vda"}


def test_a_partition_is_no_answer_to_who_waits_for_its_disk(devices: Devices) -> None:
    waiting = gevent.spawn(wait_for, devices, DISK)
    devices.apply(event("add", f"{DISK}/vda1", DEVNAME="vda1"))
    gevent.idle()
    assert not waiting.dead
    devices.apply(event("add", DISK, DEVNAME="vda"))
    assert waiting.get(timeout=IN_PROCESS).name == "vda"


def test_a_device_that_never_comes_is_named(devices: Devices) -> None:
    text = r"\Atimeout waiting for device the disk: not there after 0\.\d s\Z"
    with pytest.raises(DeadlineExceeded, match=text):
        wait_for(devices, DISK, 0.05)


def test_a_deadline_in_the_past_still_finds_what_is_there(devices: Devices) -> None:
    devices.apply(event("add", DISK, DEVNAME="vda"))
    assert wait_for(devices, DISK, -1).name == "vda"
    with pytest.raises(DeadlineExceeded):
        wait_for(devices, OTHER, -1)


def test_a_waiter_that_is_killed_leaves_nothing(devices: Devices) -> None:
    waiting = gevent.spawn(wait_for, devices, DISK)
    gevent.idle()
    assert len(devices._waiters) == 1
    waiting.kill()
    assert devices._waiters == set()


def test_an_error_of_the_probe_ends_the_waiting(devices: Devices) -> None:
    def probe() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        devices.wait_until(probe, "x", monotonic() + IN_PROCESS)


def test_what_happens_while_the_probe_blocks_is_not_missed(devices: Devices) -> None:
    calls: list[int] = []

    def probe() -> bool | None:
        calls.append(1)
        if len(calls) == 1:
            devices.apply(event("bind", "/devices/virtio9", "virtio"))
            return None
        return True

    assert devices.wait_until(probe, "x", monotonic() + IN_PROCESS)


def test_without_events_sysfs_is_looked_at_again(tmp_path: Path) -> None:
    devices = Devices(str(tmp_path))
    waiting = gevent.spawn(wait_for, devices, DISK)
    gevent.idle()
    make_device(tmp_path, DISK, "block")
    assert waiting.get(timeout=IN_PROCESS).name == "vda"
