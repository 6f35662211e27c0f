"""The guest's vsock: the host kernel's vhost-vsock, or the vhost-user back end of this package.

Both offer the hybrid vsock socket of Cloud Hypervisor to clients: a relay stands in front of the
kernel's AF_VSOCK.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import sys
from typing import NamedTuple

from kuasar_host.errors import HostError

VHOST_DEVICE = "/dev/vhost-vsock"
VHOST_SOCKET = "vhost.sock"
TASK_SOCKET = "task.vsock"
# CID of the guest in every Cloud Hypervisor sandbox of Kuasar: each hypervisor has its own CIDs.
_PRIVATE_CID = 3
_VHOST_VSOCK_SET_GUEST_CID = 0x4008AF60
_ATTEMPTS = 100


class Reserved(NamedTuple):
    """A CID of the host, reserved as long as `fd`, an open /dev/vhost-vsock, is open."""

    cid: int
    fd: int


def reserve_cid() -> Reserved | None:
    """Reserve a free CID; None if the host has no usable vhost-vsock. The caller closes `fd`."""
    try:
        fd = os.open(VHOST_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    for _ in range(_ATTEMPTS):
        cid = random.randrange(_PRIVATE_CID, 1 << 31)
        try:
            fcntl.ioctl(fd, _VHOST_VSOCK_SET_GUEST_CID, struct.pack("=Q", cid))
        except OSError:
            continue
        return Reserved(cid, fd)
    os.close(fd)
    return None


def choose(wanted: str) -> Reserved | None:
    """Return a reserved CID for the host's vhost-vsock, or None for the vhost-user back end.

    `wanted` is `auto`, `kernel` or `user`.

    Raises:
        HostError: `kernel` is wanted, and not to be had.
    """
    if wanted == "user":
        return None
    reserved = reserve_cid()
    if reserved is None and wanted == "kernel":
        raise HostError(f"{VHOST_DEVICE} is missing or refuses a CID")
    return reserved


def kernel_device(reserved: Reserved) -> list[str]:
    """Return QEMU's options; it must inherit the descriptor."""
    return ["-device", f"vhost-vsock-pci,vhostfd={reserved.fd},guest-cid={reserved.cid}"]


def kernel_relay(reserved: Reserved, task_fd: int) -> list[str]:
    """Return the command of the relay from TASK_SOCKET, which listens as `task_fd`, to AF_VSOCK."""
    command = [sys.executable, "-m", "kuasar_host.vsock.relay"]
    return [*command, "--uds-fd", str(task_fd), "--cid", str(reserved.cid)]


def user_device() -> list[str]:
    """Return QEMU's options for the back end on VHOST_SOCKET."""
    chardev = f"socket,id=vsock,path={VHOST_SOCKET}"
    return ["-chardev", chardev, "-device", "vhost-user-vsock-pci,chardev=vsock"]


def user_back_end(vhost_fd: int, task_fd: int) -> list[str]:
    """Return the command of the back end, on sockets that listen already."""
    command = [sys.executable, "-m", "kuasar_host.vsock", "--cid", str(_PRIVATE_CID)]
    command += ["--vhost", VHOST_SOCKET, "--uds", TASK_SOCKET]
    return [*command, "--vhost-fd", str(vhost_fd), "--uds-fd", str(task_fd)]
