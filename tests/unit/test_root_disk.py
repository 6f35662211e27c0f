"""QEMU's options and the kernel's words for a root disk, and which initrd goes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kuasar_debug.cli import BOOT_INITRD, INITRD, make_config
from kuasar_host.errors import DebugError
from kuasar_host.root_disk import RootDisk


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a,b.img"
    path.write_bytes(bytes(1 << 20))
    return path


def test_a_virtio_disk_is_attached_read_only(image: Path) -> None:
    root = RootDisk(image)
    assert root.words().startswith("root=/dev/vda1 ")
    assert " ro " in root.words()
    assert root.memory() == ""
    assert f"file={image.parent}/a,,b.img,format=raw,if=none,id=root,readonly=on" in root.devices()


def test_persistent_memory_needs_room_beside_the_guests_own(image: Path) -> None:
    root = RootDisk(image, pmem=True)
    assert root.words().startswith("root=/dev/pmem0p1 ")
    assert root.memory().startswith(",slots=1,maxmem=")
    assert any(option.endswith(",size=1048576,share=off") for option in root.devices())


def options(image: Path | None, pmem: bool = False, *initrd: Path) -> dict[str, Any]:
    return {"kernel": Path("vmlinux"), "image": image, "pmem": pmem, "initrd": initrd}


def test_without_a_disk_the_initrd_is_the_root(tmp_path: Path) -> None:
    config = make_config(tmp_path, options(None))
    assert (config.root, config.initrd) == (None, [INITRD])


def test_a_disk_is_mounted_by_the_initrd_beside_it(image: Path, tmp_path: Path) -> None:
    assert make_config(tmp_path, options(image, True)).initrd == []
    helper = image.with_name(BOOT_INITRD)
    helper.touch()
    config = make_config(tmp_path, options(image, True))
    assert (config.root, config.initrd) == (RootDisk(image, pmem=True), [helper])


def test_an_initrd_that_was_asked_for_is_taken(image: Path, tmp_path: Path) -> None:
    for disk in (None, image):
        asked = tmp_path / "other.initrd"
        assert make_config(tmp_path, options(disk, False, asked)).initrd == (asked,)


def test_pmem_without_a_disk_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DebugError, match="--image"):
        make_config(tmp_path, options(None, True))
