"""Links, addresses and routes over NETLINK_ROUTE (rtnetlink(7)), blocking.

pyroute2 encodes and decodes messages. Its sockets are not used: they need asyncio, whose import
takes longer than everything else here. The kernel answers each request before send(2) returns, so
that a call waits only for the kernel's lock.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from importlib.util import find_spec, module_from_spec
from typing import Any

# linux/netlink.h
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300
_NLM_F_DUMP_INTR = 0x10
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11

# linux/rtnetlink.h
RTM_GETLINK, RTM_SETLINK = 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

# linux/if.h
IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_NOARP = 0x80

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ERROR = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")
_BUFFER = 1 << 16  # a dump's messages come in buffers of at most 32 KiB
_DUMP_ATTEMPTS = 5


def link_message(**fields: Any) -> Any:
    """Return a struct ifinfomsg; `attrs` are pairs such as ("IFLA_MTU", 1500)."""
    from kuasar_agent.linux.rtlink import LinkMessage

    return _filled(LinkMessage(), fields)


def address_message(**fields: Any) -> Any:
    """Return a struct ifaddrmsg; arguments as of `link_message`."""
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    return _filled(ifaddrmsg(), fields)


def route_message(**fields: Any) -> Any:
    """Return a struct rtmsg; arguments as of `link_message`."""
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    return _filled(rtmsg(), fields)


def warm_up() -> None:
    """Import the modules of the messages, so that the first request is faster."""
    link_message()
    address_message()
    route_message()


class RouteSocket:
    """A connection with the kernel in this thread's network namespace."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._sequence = 0
        try:
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> RouteSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def change(self, kind: int, message: Any, flags: int = 0) -> None:
        """Make a change (RTM_NEW…, RTM_SET…, RTM_DEL…).

        Raises:
            OSError: the kernel refuses; the text includes its extended message if it sends one.
        """
        for _ in self._ask(kind, message, flags | NLM_F_ACK):
            pass

    def dump(self, kind: int, message: Any) -> list[Any]:
        """Return all objects of a kind (RTM_GET…) in the kernel's order. Raises OSError."""
        for _ in range(_DUMP_ATTEMPTS):
            entries = []
            interrupted = False
            for flags, body in self._ask(kind, message, NLM_F_DUMP):
                interrupted |= bool(flags & _NLM_F_DUMP_INTR)
                entry = type(message)(body)
                entry.decode()
                entries.append(entry)
            if not interrupted:
                return entries
        raise OSError(errno.EBUSY, "the table changes faster than it can be read")

    def _ask(self, kind: int, message: Any, flags: int) -> Iterator[tuple[int, bytes]]:
        self._sequence += 1
        header = message["header"]
        header["type"], header["flags"] = kind, flags | NLM_F_REQUEST
        header["sequence_number"] = self._sequence
        message.encode()
        self._socket.send(message.data)
        while True:
            data = self._socket.recv(_BUFFER)
            for length, answer, answer_flags, sequence, offset in _split(data):
                if sequence != self._sequence:
                    continue  # an answer to an earlier request that an error ended
                if answer == _NLMSG_ERROR:
                    _check(data[offset : offset + length])
                    return
                if answer == _NLMSG_DONE:
                    return
                yield answer_flags, data[offset : offset + length]


def _filled(message: Any, fields: dict[str, Any]) -> Any:
    for name, value in fields.items():
        message[name] = value
    return message


def _split(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield length, type, flags, sequence and offset of each message, headers included."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
        yield length, kind, flags, sequence, offset
        offset += (length + 3) & ~3


def _check(message: bytes) -> None:
    """Raise the error of an NLMSG_ERROR, unless it is an acknowledgement."""
    (negative,) = _ERROR.unpack_from(message, _HEADER.size)
    if negative:
        text = os.strerror(-negative)
        if words := _words(message):
            text = f"{text} ({words})"
        raise OSError(-negative, text)


def _words(message: bytes) -> str:
    """Return the extended message of an error; its attributes follow the request's header."""
    offset = 2 * _HEADER.size + _ERROR.size
    while offset + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        if length < _ATTRIBUTE.size:
            break
        if kind & 0x3FFF == _NLMSGERR_ATTR_MSG:
            return message[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""


def _without_init(package: str) -> None:
    """Make the modules of a package importable without running its `__init__`."""
    if package not in sys.modules and (spec := find_spec(package)) is not None:
        sys.modules[package] = module_from_spec(spec)


# pyroute2's __init__ imports every protocol that it knows: 0.1 s and 15 MB.
_without_init("pyroute2")
