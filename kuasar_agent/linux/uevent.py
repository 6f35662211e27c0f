"""The kernel's device events: NETLINK_KOBJECT_UEVENT, read without blocking.

A message is `<action>@<devpath>` and then `KEY=VALUE` pairs, each ended by a NUL byte.
Source: the kernel's lib/kobject_uevent.c; netlink(7).
"""

import errno
import socket
from typing import NamedTuple

_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
"""The kernel's own events; udev repeats them in another group."""
_SO_RCVBUFFORCE = 33
_BUFFER = 1 << 20
_MESSAGE = 8192  # the kernel's limit is 2048 for the pairs, the path comes on top


class Overrun(Exception):
    """Events were lost: the caller has to read sysfs."""


class Uevent(NamedTuple):
    """An event of a device."""

    action: str
    """add, remove, change, move, bind, unbind, online or offline."""
    devpath: str
    """The device's directory below /sys, such as `/devices/pci0000:00/…/block/vda`."""
    subsystem: str
    properties: dict[str, str]


def parse(message: bytes) -> Uevent | None:
    """Parse a message of the kernel; return None for another one, such as udev's."""
    header, *pairs = message.split(b"\0")
    if b"@" not in header:
        return None
    properties = {}
    for pair in pairs:
        key, separator, value = pair.partition(b"=")
        if separator:
            properties[_text(key)] = _text(value)
    action, devpath = properties.get("ACTION"), properties.get("DEVPATH")
    if not action or not devpath:
        return None
    return Uevent(action, devpath, properties.get("SUBSYSTEM", ""), properties)


class UeventSocket:
    """A source of the events since its creation."""

    def __init__(self) -> None:
        """Listen to the kernel.

        Raises:
            OSError: the kernel has no events or refuses the listener.
        """
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_KOBJECT_UEVENT)
        try:
            self._enlarge()
            self._socket.bind((0, _KERNEL_GROUP))
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def receive(self) -> Uevent | None:
        """Return the next event; None if none is queued.

        Raises:
            Overrun: events were lost.

        Blocks: never.
        """
        while True:
            try:
                message, (sender, _) = self._socket.recvfrom(_MESSAGE)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise Overrun from None
                raise
            # Any process with CAP_NET_ADMIN may send to the group; the kernel's port id is 0.
            if sender == 0 and (event := parse(message)) is not None:
                return event

    def _enlarge(self) -> None:
        """Make room for a burst, such as the disks of a bus that is plugged in."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")
