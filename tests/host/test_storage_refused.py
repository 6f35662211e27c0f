"""Storages that make no sense, or whose file system does not: nothing of them is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kuasar_agent.errors import (
    FailedPrecondition,
    InvalidArgument,
)
from tests.support.storages import ADDRESS, Pod, Within, make_image


def test_a_wrong_fstype_is_refused(within: Within, disk: str) -> None:
    def body(pod: Pod) -> None:
        pod.devices.plug(disk)
        error = pod.refusal(pod.storage("blk", source=ADDRESS, fstype="squashfs"))
        assert isinstance(error, InvalidArgument)
        assert "as squashfs" in error.message
        error = pod.refusal(pod.storage("blk", source=ADDRESS, fstype="no-such-fs"))
        assert isinstance(error, InvalidArgument)
        assert "does not know" in error.message

    within(body)


def test_a_damaged_file_system_is_refused(
    within: Within, loop: Callable[[Path], str], tmp_path: Path
) -> None:
    image = make_image(tmp_path / "damaged.img")
    with image.open("r+b") as file:
        file.seek(1024 + 0x60)
        file.write(b"\xff" * 256)  # features, UUID and sizes; the magic stays
    damaged = loop(image)
    (tmp_path / "zero.img").write_bytes(bytes(1 << 20))
    empty = loop(tmp_path / "zero.img")

    def body(pod: Pod) -> None:
        pod.devices.plug(damaged)
        error = pod.refusal(pod.storage("blk", source=ADDRESS, fstype="ext4"))
        assert isinstance(error, InvalidArgument | FailedPrecondition)
        pod.devices.unplug(damaged)
        pod.devices.plug(empty)
        error = pod.refusal(pod.storage("blk", source=ADDRESS, fstype=""))
        assert "no known file system" in error.message

    within(body)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"driver": "floppy"}, "unknown driver 'floppy'"),
        ({"driver": None}, "unknown driver ''"),
        ({"driver": 5}, "driver is not a string"),
        ({"driver": "blk", "source": "vda"}, "PCI address 'vda'"),
        ({"driver": "scsi", "source": "0000:00:06.0"}, "SCSI address '0000:00:06.0'"),
        ({"driver": "virtio-fs"}, "source is empty"),
        ({"options": "ro"}, "options is not an array of strings"),
        ({"options": [5]}, "options is not an array of strings"),
        ({"options": ["a" * 5000]}, "mount option is too long"),
        ({"mount_point": ""}, "mount_point '' is not an absolute path"),
        ({"mount_point": "storage1"}, "is not an absolute path"),
        ({"mount_point": "/etc"}, "is not below"),
        ({"mount_point": "{root}"}, "is not below"),
        ({"mount_point": "{root}/../storage/x"}, "is not an absolute path without '..'"),
        ({"mount_point": "{root}-2/x"}, "is not below"),
        ({"mount_point": "{root}/a\0b"}, "mount_point is not a string"),
        ({"fstype": {}}, "fstype is not a string"),
    ],
)
def test_bad_input_is_refused_before_anything_is_mounted(
    within: Within, fields: dict[str, Any], fault: str
) -> None:
    def body(pod: Pod) -> None:
        bad = pod.storage("ephemeral") | fields
        if isinstance(bad["mount_point"], str):
            bad["mount_point"] = bad["mount_point"].replace("{root}", str(pod.root))
        error = pod.refusal(pod.storage("ephemeral", id="good"), bad)
        assert isinstance(error, InvalidArgument)
        assert fault in error.message

    within(body)


def test_a_link_that_leads_out_is_refused(within: Within) -> None:
    def body(pod: Pod) -> None:
        (pod.root / "link").symlink_to("/")
        with pytest.raises(InvalidArgument, match="leads to"):
            pod.attach("c1", pod.storage("ephemeral", mount_point=str(pod.root / "link/mnt/x")))
        (pod.root / "link").unlink()

    within(body)


def test_every_key_but_the_needed_ones_may_be_missing_or_null(within: Within) -> None:
    def body(pod: Pod) -> None:
        nulls = dict.fromkeys(("id", "source", "fstype", "options", "driver_options", "type"))
        for extra in ({}, nulls):
            storage = {"driver": "ephemeral", "mount_point": str(pod.root / "x"), **extra}
            pod.attach("c1", storage)
            pod.storages.release("c1")

    within(body)
