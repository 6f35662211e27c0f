"""QEMU's options for the parts of a configuration, and the kernel's words for a root disk."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from kuasar_host.accel import Accelerator
from kuasar_host.config import Config, Disk, Nic, RootDisk, Share
from kuasar_host.qemu import command_line


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
    assert f"file={image.parent}/a,,b.img,format=raw,if=none,id=root,readonly=on" in root.options()


def test_persistent_memory_needs_room_beside_the_guests_own(image: Path) -> None:
    root = RootDisk(image, pmem=True)
    assert root.words().startswith("root=/dev/pmem0p1 ")
    assert root.memory().startswith(",slots=1,maxmem=")
    assert any(option.endswith(",size=1048576,share=off") for option in root.options())


def test_a_network_card_is_connected_to_its_tap_or_to_the_other_cards() -> None:
    tapped = Nic("eth", "52:54:00:00:00:01", "tap0").options()
    assert tapped[1] == "tap,ifname=tap0,script=no,downscript=no,id=net-eth"
    assert Nic("eth", "52:54:00:00:00:01").options()[1] == "hubport,hubid=0,id=net-eth"
    assert tapped[3] == "virtio-net-pci,netdev=net-eth,id=eth,mac=52:54:00:00:00:01"


def test_the_command_line_has_every_part_of_the_configuration(image: Path) -> None:
    config = Config(
        directory=image.parent,
        kernel=Path("vmlinux"),
        initrd=[],
        root=RootDisk(image),
        disks=[Disk("d1", image, readonly=True)],
        nics=[Nic("n1", "52:54:00:00:00:01")],
        shares=[Share("plan9", image.parent)],
        root_ports=2,
        arguments=["-device", "virtio-rng-pci"],
        append="task.debug",
    )
    command = command_line(config, Accelerator("tcg", ""), None, ["-device", "vsock"])
    devices = [word for option, word in pairwise(command) if option == "-device"]
    assert [device.partition(",")[0] for device in devices] == [
        "virtio-blk-pci",
        "vsock",
        "pcie-root-port",
        "pcie-root-port",
        "virtio-blk-pci",
        "virtio-net-pci",
        "virtio-9p-pci",
        "virtio-rng-pci",
    ]
    assert "-initrd" not in command
    words = command[command.index("-append") + 1]
    assert "root=/dev/vda1 " in words
    assert words.endswith("task.sharefs_type=virtiofs task.debug")
