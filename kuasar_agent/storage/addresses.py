"""The addresses by which hosts name disks, and the directory in /sys that one stands for.

    blk      0000:00:06.0   Cloud Hypervisor: the disk's own function
                            StratoVirt: the root port that the disk is behind
             0000:02:05.0   QEMU: slot 5 behind the bridge in slot 2 of bus 0; the guest numbers
                            buses itself, so that the disk may have another address there
    mmioblk  /dev/vdb, vdb, virtio-mmio.3 or a003e00.virtio_mmio
    scsi     1:0            target and logical unit
    nvdimm   /dev/pmem0, pmem0p1, or the PCI address of a virtio-pmem device

Every function that parses raises InvalidArgument for an address of another form. Source: the
device code of Kuasar's hypervisors.
"""

import re
from typing import NamedTuple

from kuasar_agent.errors import InvalidArgument

_PCI = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")
_VIRTIO_BLK = re.compile(r"(.*)/virtio\d+/block/[^/]+")
_VIRTIO_PMEM = re.compile(r"(.*)/virtio\d+/ndbus\d+/.*/block/[^/]+")
_SCSI = re.compile(r"([0-9]{1,3}):([0-9]{1,5})")
_SCSI_DISK = re.compile(r".*/virtio\d+/host\d+/target\d+:0:\d+/\d+:0:(\d+):(\d+)/block/[^/]+")
_SCSI_TARGETS = 256
_SCSI_UNITS = 16384  # the number of units that virtio-scsi can address
_NAME = re.compile(r"(?:/dev/)?([a-z][a-z0-9]*)")
_MMIO = re.compile(r"virtio-mmio\.[0-9]+|(?:0x)?([0-9a-f]+)(?:\.virtio_mmio)?")


class PciAddress(NamedTuple):
    """The address of a PCI function."""

    domain: int
    bus: int
    slot: int
    function: int

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.{self.function}"


class ScsiAddress(NamedTuple):
    """The address of a SCSI disk behind a virtio-scsi controller."""

    target: int
    unit: int


def parse_pci(text: str) -> PciAddress:
    """Parse `dddd:bb:ss.f`."""
    match = _PCI.fullmatch(text)
    if match is None or int(match[3], 16) > 0x1F:
        raise InvalidArgument(f"PCI address {text!r}: expected domain:bus:slot.function")
    return PciAddress(*(int(part, 16) for part in match.groups()))


def parse_scsi(text: str) -> ScsiAddress:
    """Parse `target:unit`."""
    match = _SCSI.fullmatch(text)
    if match is None or int(match[1]) >= _SCSI_TARGETS or int(match[2]) >= _SCSI_UNITS:
        raise InvalidArgument(f"SCSI address {text!r}: expected target:unit")
    return ScsiAddress(int(match[1]), int(match[2]))


def parse_name(text: str) -> str:
    """Parse the name of a disk, with or without `/dev/`."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"device {text!r}: expected a name in /dev")
    return match[1]


def pci_chain(path: str) -> list[PciAddress]:
    """Return the PCI functions in the path of a device, beginning at the root bus."""
    return [parse_pci(part) for part in path.split("/") if _PCI.fullmatch(part)]


def is_blk_at(devpath: str, address: PciAddress, *, behind_bridge: bool) -> bool:
    """Return whether a device is the virtio-blk disk at `address`.

    `behind_bridge`: whether the guest has a bridge in the slot of bus 0 that the address gives as
    its bus. The address then means this bridge, whatever number the guest gave to its bus.
    """
    match = _VIRTIO_BLK.fullmatch(devpath)
    return match is not None and _ends_at(match[1], address, behind_bridge)


def is_pmem_at(devpath: str, address: PciAddress, *, behind_bridge: bool) -> bool:
    """Return whether a device is the virtio-pmem disk at `address`, as `is_blk_at` does."""
    match = _VIRTIO_PMEM.fullmatch(devpath)
    return match is not None and _ends_at(match[1], address, behind_bridge)


def is_mmio_at(devpath: str, address: str) -> bool:
    """Return whether a device is the virtio-blk disk on virtio-mmio of this name or transport."""
    match = _VIRTIO_BLK.fullmatch(devpath)
    if match is None or pci_chain(devpath):
        return False
    transport = _MMIO.fullmatch(address)
    if transport is not None and match[1].rpartition("/")[2] in (
        address,
        f"{transport[1]}.virtio_mmio",
    ):
        return True
    return transport is None and devpath.rpartition("/")[2] == parse_name(address)


def check_mmio(address: str) -> None:
    """Check that `is_mmio_at` understands an address.

    Raises:
        InvalidArgument: it does not.
    """
    if not _MMIO.fullmatch(address):
        parse_name(address)


def is_scsi_at(devpath: str, address: ScsiAddress) -> bool:
    """Return whether a device is the disk of a virtio-scsi controller at `address`."""
    match = _SCSI_DISK.fullmatch(devpath)
    # A unit from 256 on has a bit set for flat addressing, unless it was scanned by its number.
    return match is not None and (int(match[1]), int(match[2]) % _SCSI_UNITS) == address


def _ends_at(path: str, address: PciAddress, behind_bridge: bool) -> bool:
    chain = pci_chain(path)
    if not chain:
        return False
    disk, parents = chain[-1], chain[:-1]
    if behind_bridge:
        return (
            bool(parents)
            and parents[-1] == PciAddress(address.domain, 0, address.bus, 0)
            and (disk.slot, disk.function) == (address.slot, address.function)
        )
    return disk == address or (bool(parents) and parents[-1] == address and disk.slot == 0)
