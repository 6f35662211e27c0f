"""Everything that a boot can be told, and QEMU's options for the parts of it.

QEMU runs in the microVM's directory, so that files there have short names. In its options a comma
separates, and is doubled inside a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_ROOT_WORDS = "root={} rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4"
_MIB = 1 << 20


@dataclass(frozen=True)
class RootDisk:
    """A disk image, kuasar.img, with the root file system in its first partition.

    The guest sees a virtio disk or persistent memory, with the words of Kuasar's hosts for either.
    """

    path: Path
    pmem: bool = False

    def words(self) -> str:
        """Return the kernel parameters that name the root."""
        return _ROOT_WORDS.format("/dev/pmem0p1" if self.pmem else "/dev/vda1")

    def memory(self) -> str:
        """Return the end of QEMU's `-m`: address space for the disk beside the guest's memory."""
        return f",slots=1,maxmem={self._size() // _MIB + 65536}M" if self.pmem else ""

    def options(self) -> list[str]:
        """Return QEMU's options; the guest cannot change the file."""
        path = _escaped(self.path)
        if self.pmem:
            # Private, as with Cloud Hypervisor's discard_writes: a write would stay in QEMU.
            memory = f"memory-backend-file,id=root,mem-path={path},size={self._size()},share=off"
            return ["-object", memory, "-device", "virtio-pmem-pci,memdev=root,id=rootdisk"]
        drive = f"file={path},format=raw,if=none,id=root,readonly=on"
        return ["-drive", drive, "-device", "virtio-blk-pci,drive=root"]

    def _size(self) -> int:
        return self.path.stat().st_size


@dataclass(frozen=True)
class Disk:
    """A raw disk image: a virtio block device. `id` is unique among the microVM's devices."""

    id: str
    path: Path
    readonly: bool = False

    def options(self) -> list[str]:
        """Return QEMU's options."""
        readonly = "on" if self.readonly else "off"
        drive = f"file={_escaped(self.path)},format=raw,if=none,id=disk-{self.id}"
        device = f"virtio-blk-pci,drive=disk-{self.id},id={self.id}"
        return ["-drive", f"{drive},readonly={readonly}", "-device", device]


@dataclass(frozen=True)
class Nic:
    """A virtio network card. `id` is unique among the microVM's devices."""

    id: str
    mac: str
    tap: str | None = None
    """Tap device of the host, which exists already; None connects the microVM's cards with each
    other only."""

    def options(self) -> list[str]:
        """Return QEMU's options."""
        back_end = f"tap,ifname={self.tap},script=no,downscript=no"
        if self.tap is None:
            back_end = "hubport,hubid=0"
        device = f"virtio-net-pci,netdev=net-{self.id},id={self.id},mac={self.mac}"
        return ["-netdev", f"{back_end},id=net-{self.id}", "-device", device]


@dataclass(frozen=True)
class Share:
    """A further directory for the guest, over 9p; `tag` is its source in a 9p mount."""

    tag: str
    path: Path

    def options(self) -> list[str]:
        """Return QEMU's options."""
        back_end = f"local,id=share-{self.tag},path={_escaped(self.path)},security_model=none"
        device = f"virtio-9p-pci,fsdev=share-{self.tag},mount_tag={self.tag}"
        return ["-fsdev", back_end, "-device", device]


@dataclass(frozen=True)
class Config:
    """A microVM to boot. Memory in MiB, times in seconds."""

    directory: Path
    """Gets the sockets, logs and the shared directory (`kuasar_host.sandbox`); made if missing."""
    kernel: Path
    initrd: Sequence[Path]
    """Concatenated if more than one; an uncompressed one has to come first."""
    root: RootDisk | None = None
    """Root file system; an initrd then only has to mount it, and may be missing."""
    disks: Sequence[Disk] = ()
    nics: Sequence[Nic] = ()
    shares: Sequence[Share] = ()
    """In addition to the shared directory, which every microVM has."""
    accelerator: str = "auto"
    """`kvm`, `tcg`, or `auto`: KVM if it proves to work (`kuasar_host.accel`)."""
    sharefs: str = "virtiofs"
    """File system of the shared directory: `virtiofs` or `9p`."""
    vsock: str = "auto"
    """`kernel`: the host's vhost-vsock; `user`: the back end of this package; `auto`: the first
    that there is."""
    memory: int = 512
    cpus: int = 1
    root_ports: int = 0
    """Number of empty PCIe slots, `rp1`, `rp2`, …, for `kuasar_host.hotplug`."""
    arguments: Sequence[str] = ()
    """Further options of QEMU; a `-m` or `-smp` among them adds to the one that is there."""
    append: str = ""
    """Further kernel parameters."""
    ready_within: float = 120.0
    echo: Callable[[str], None] | None = field(default=None, compare=False)
    """Called with every line of the console."""


def _escaped(path: Path) -> str:
    return str(path.absolute()).replace(",", ",,")
