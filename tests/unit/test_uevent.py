"""Parsing what the kernel says of its devices."""

from __future__ import annotations

import pytest

from kuasar_agent.linux.uevent import Uevent, parse

DISK = (
    b"add@/devices/pci0000:00/0000:00:05.0/virtio3/block/vda\0ACTION=add\0"
    b"DEVPATH=/devices/pci0000:00/0000:00:05.0/virtio3/block/vda\0SUBSYSTEM=block\0"
    b"MAJOR=254\0MINOR=0\0DEVNAME=vda\0DEVTYPE=disk\0SEQNUM=1234\0"
)


def test_a_message_is_an_action_a_path_and_pairs() -> None:
    event = parse(DISK)
    assert event is not None
    assert event[:3] == ("add", "/devices/pci0000:00/0000:00:05.0/virtio3/block/vda", "block")
    assert event.properties["DEVNAME"] == "vda"
    assert event.properties["SEQNUM"] == "1234"


def test_a_value_may_hold_an_equals_sign_and_bytes_of_any_kind() -> None:
    event = parse(b"add@/d\0ACTION=add\0DEVPATH=/d\0A=b=c\0N=\xff\0")
    assert event == Uevent(
        "add", "/d", "", {"ACTION": "add", "DEVPATH": "/d", "A": "b=c", "N": "\udcff"}
    )


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0\0\0",
        b"libudev\0\xfe\xed\xca\xfe\0ACTION=add\0DEVPATH=/d\0",
        b"add@/d\0",
        b"add@/d\0ACTION=add\0",
        b"add@/d\0DEVPATH=/d\0",
        b"add@/d\0ACTION\0DEVPATH\0",
    ],
)
def test_a_message_of_another_form_is_none(message: bytes) -> None:
    assert parse(message) is None
