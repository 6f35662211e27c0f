"""Which place in /sys a host's address means."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kuasar_agent.errors import InvalidArgument
from kuasar_agent.storage import addresses
from kuasar_agent.storage.addresses import (
    is_blk_at,
    is_mmio_at,
    is_pmem_at,
    is_scsi_at,
    parse_name,
    parse_pci,
    parse_scsi,
)

ON_BUS_0 = "/devices/pci0000:00/0000:00:06.0/virtio3/block/vda"
BEHIND_ROOT_PORT = "/devices/pci0000:00/0000:00:05.0/0000:05:00.0/virtio3/block/vda"
BEHIND_BRIDGE = "/devices/pci0000:00/0000:00:02.0/0000:01:05.0/virtio4/block/vdb"
SCSI = "/devices/pci0000:00/0000:00:03.0/virtio1/host2/target2:0:1/2:0:1:7/block/sda"
PMEM = "/devices/pci0000:00/0000:00:08.0/virtio5/ndbus0/region0/namespace0.0/block/pmem0"
MMIO = "/devices/platform/a003e00.virtio_mmio/virtio0/block/vda"
MMIO_CMDLINE = "/devices/virtio-mmio-cmdline/virtio-mmio.3/virtio1/block/vdb"


@pytest.mark.parametrize(
    ("devpath", "address", "behind_bridge", "meant"),
    [
        (ON_BUS_0, "0000:00:06.0", False, True),
        (ON_BUS_0, "0000:00:07.0", False, False),
        (ON_BUS_0, "0001:00:06.0", False, False),
        (f"{ON_BUS_0}/vda1", "0000:00:06.0", False, False),
        (BEHIND_ROOT_PORT, "0000:00:05.0", False, True),
        (BEHIND_ROOT_PORT, "0000:05:00.0", False, True),
        (f"{BEHIND_ROOT_PORT}/vda1", "0000:00:05.0", False, False),
        (BEHIND_BRIDGE, "0000:02:05.0", True, True),
        (BEHIND_BRIDGE, "0000:02:06.0", True, False),
        (BEHIND_BRIDGE, "0000:03:05.0", True, False),
        # Slot 5 behind a bridge is not the bridge, and bus 1 may be another bridge's.
        (BEHIND_BRIDGE, "0000:00:02.0", False, False),
        (BEHIND_BRIDGE, "0000:01:05.0", True, False),
        (BEHIND_BRIDGE, "0000:01:05.0", False, True),
        (SCSI, "0000:00:03.0", False, False),
        (PMEM, "0000:00:08.0", False, False),
        (MMIO, "0000:00:06.0", False, False),
        ("/devices/virtual/block/loop0", "0000:00:06.0", False, False),
    ],
)
def test_blk(devpath: str, address: str, behind_bridge: bool, meant: bool) -> None:
    assert is_blk_at(devpath, parse_pci(address), behind_bridge=behind_bridge) is meant


def test_pmem_by_the_address_of_its_device() -> None:
    assert is_pmem_at(PMEM, parse_pci("0000:00:08.0"), behind_bridge=False)
    assert not is_pmem_at(f"{PMEM}/pmem0p1", parse_pci("0000:00:08.0"), behind_bridge=False)
    assert not is_pmem_at(ON_BUS_0, parse_pci("0000:00:06.0"), behind_bridge=False)


@pytest.mark.parametrize(
    ("devpath", "address", "meant"),
    [
        (MMIO, "a003e00.virtio_mmio", True),
        (MMIO, "a003e00", True),
        (MMIO, "0xa003e00", True),
        (MMIO, "a003c00", False),
        (MMIO, "/dev/vda", True),
        (MMIO, "vda", True),
        (MMIO, "vdb", False),
        (MMIO_CMDLINE, "virtio-mmio.3", True),
        (MMIO_CMDLINE, "virtio-mmio.1", False),
        (f"{MMIO}/vda1", "vda", False),
        (ON_BUS_0, "vda", False),
    ],
)
def test_mmio(devpath: str, address: str, meant: bool) -> None:
    assert is_mmio_at(devpath, address) is meant


@pytest.mark.parametrize(
    ("devpath", "address", "meant"),
    [
        (SCSI, "1:7", True),
        (SCSI, "7:1", False),
        (SCSI, "1:8", False),
        (f"{SCSI}/sda1", "1:7", False),
        (SCSI.replace("2:0:1:7", "2:0:1:16684"), "1:300", True),
        (SCSI.replace("2:0:1", "2:1:1"), "1:7", False),
        ("/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:1/0:0:1:7/block/sda", "1:7", False),
    ],
)
def test_scsi(devpath: str, address: str, meant: bool) -> None:
    assert is_scsi_at(devpath, parse_scsi(address)) is meant


@pytest.mark.parametrize(
    ("parse", "address"),
    [
        *((parse_pci, text) for text in ("", "00:06.0", "0000:00:06", "0000:00:20.0")),
        *((parse_pci, text) for text in ("0000:00:06.8", "0000:00:06.0/..", "/dev/vda")),
        *((parse_scsi, text) for text in ("", "1", "1:", ":1", "1:2:3", "a:b", "-1:0", "256:0")),
        *((parse_scsi, text) for text in ("0:16384", "1:2\n", "0:0:1:2")),
        *((parse_name, text) for text in ("", "/dev/", "/dev/../etc", "/etc/passwd", "a/b")),
        *((addresses.check_mmio, text) for text in ("", "..", "virtio-mmio.", "/dev/../vda")),
    ],
)
def test_an_address_of_another_form_is_refused_and_quoted(
    parse: Callable[[str], object], address: str
) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse(address)
    assert repr(address) in refusal.value.message
