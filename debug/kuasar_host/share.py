"""The shared directory: virtiofs through QEMU's virtiofsd, or 9p inside QEMU itself.

QEMU runs in the microVM's directory and gets relative paths, so that neither the length of the
directory's name nor a comma in it matters.
"""

from __future__ import annotations

from pathlib import Path

VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
TAG = "kuasar"
SOCKET = "share.sock"


def daemon(directory: Path, listening_fd: int) -> list[str]:
    """The virtiofsd that serves `directory` (absolute) on a socket that listens already."""
    source = str(directory).replace("\\", "\\\\").replace(",", "\\,")
    options = ["-o", f"source={source}", "-o", "cache=auto", "-o", "sandbox=chroot"]
    return [str(VIRTIOFSD), f"--fd={listening_fd}", *options]


def virtiofs_device() -> list[str]:
    """QEMU's options for a share that virtiofsd serves on SOCKET."""
    device = f"vhost-user-fs-pci,chardev=share,tag={TAG},queue-size=1024"
    return ["-chardev", f"socket,id=share,path={SOCKET}", "-device", device]


def ninep_device(directory: str) -> list[str]:
    """QEMU's options for a share that it serves itself."""
    local = f"local,id=share,path={directory},security_model=none,multidevs=remap"
    return ["-fsdev", local, "-device", f"virtio-9p-pci,fsdev=share,mount_tag={TAG}"]
