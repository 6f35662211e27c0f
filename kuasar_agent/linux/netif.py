"""Interface flags by ioctl, which bring `lo` up without the import of pyroute2."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

# struct ifreq: char ifr_name[16]; union { short ifr_flags; … } of 24 bytes
_IFREQ = struct.Struct("16sH22x")


def set_up(name: str) -> None:
    """Bring an interface up.

    Raises:
        OSError: the kernel refuses; the error has the interface as `filename`.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            request = _IFREQ.pack(name.encode(), 0)
            _, flags = _IFREQ.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, request))
            if not flags & _IFF_UP:
                fcntl.ioctl(sock, _SIOCSIFFLAGS, _IFREQ.pack(name.encode(), flags | _IFF_UP))
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), name) from None
