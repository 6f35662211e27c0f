"""Booting from kuasar.img: a virtio disk, or persistent memory, each with Kuasar's words for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_WORDS = "root={} rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4"
_MIB = 1 << 20


@dataclass(frozen=True)
class RootDisk:
    """A disk image that holds the root file system in its first partition."""

    path: Path
    pmem: bool = False

    def words(self) -> str:
        """What the kernel's command line says about the root."""
        return _WORDS.format("/dev/pmem0p1" if self.pmem else "/dev/vda1")

    def memory(self) -> str:
        """What follows the size in QEMU's `-m`: room for the disk in the guest's memory map."""
        return f",slots=1,maxmem={self._size() // _MIB + 65536}M" if self.pmem else ""

    def devices(self) -> list[str]:
        """QEMU's options; the guest cannot change the file."""
        path = str(self.path.absolute()).replace(",", ",,")
        if self.pmem:
            # Private, as with Cloud Hypervisor's discard_writes: a write would stay in QEMU.
            memory = f"memory-backend-file,id=root,mem-path={path},size={self._size()},share=off"
            return ["-object", memory, "-device", "virtio-pmem-pci,memdev=root,id=rootdisk"]
        drive = f"file={path},format=raw,if=none,id=root,readonly=on"
        return ["-drive", drive, "-device", "virtio-blk-pci,drive=root"]

    def _size(self) -> int:
        return self.path.stat().st_size
