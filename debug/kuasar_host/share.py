"""The shared directory: virtiofs through QEMU's virtiofsd, or 9p inside QEMU itself.

QEMU runs in the microVM's directory and gets relative paths, so that neither the length of the
directory's name nor a comma in it matters.
"""

from __future__ import annotations

from pathlib import Path

from kuasar_host.errors import HostError

VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
TAG = "kuasar"
SOCKET = "share.sock"


def find_daemon() -> Path:
    """Return the path of virtiofsd.

    Raises:
        HostError: it is not installed.
    """
    if not VIRTIOFSD.exists():
        packages = "Debian 12: qemu-system-common; Debian 13: virtiofsd"
        raise HostError(f"{VIRTIOFSD} does not exist ({packages}; 9p needs none)")
    return VIRTIOFSD


def daemon(program: Path, directory: Path, listening_fd: int) -> list[str]:
    """Return the command of a virtiofsd that serves `directory`, which is absolute."""
    source = str(directory).replace("\\", "\\\\").replace(",", "\\,")
    options = ["-o", f"source={source}", "-o", "cache=auto", "-o", "sandbox=chroot"]
    return [str(program), f"--fd={listening_fd}", *options]


def virtiofs_device() -> list[str]:
    """Return QEMU's options for a share that virtiofsd serves on SOCKET."""
    device = f"vhost-user-fs-pci,chardev=share,tag={TAG},queue-size=1024"
    return ["-chardev", f"socket,id=share,path={SOCKET}", "-device", device]


def ninep_device(directory: str) -> list[str]:
    """Return QEMU's options for a share that QEMU serves itself."""
    local = f"local,id=share,path={directory},security_model=none,multidevs=remap"
    return ["-fsdev", local, "-device", f"virtio-9p-pci,fsdev=share,mount_tag={TAG}"]
