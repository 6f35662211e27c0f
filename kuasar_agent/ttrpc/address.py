"""Addresses, and sockets for them.

unix:///path          a unix socket; unix://@name is an abstract one
vsock://cid:port      AF_VSOCK; the cid -1 stands for any
hvsock:///path:port   the unix socket of a hypervisor in front of a guest's vsock (Cloud
                      Hypervisor, Firecracker): a client connects to `path` and writes
                      `CONNECT port`; a server of the guest's connections listens on `path_port`
tcp://host:port       TCP; an IPv6 address is in brackets, and no host stands for any
ttrpc+...             any of these, as containerd writes task addresses
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from time import monotonic
from typing import NamedTuple

from gevent import sleep
from gevent import socket as gsocket

from .status import DeadlineExceeded, InvalidArgument

__all__ = ["dial", "listen"]

HVSOCK_ATTEMPT = 0.5
"""Seconds for the hypervisor's answer; the guest may not be listening yet."""
HVSOCK_PAUSE = 0.01
"""Seconds between attempts."""
LONGEST_ANSWER = 64
"""Bytes of the hypervisor's answer, which is `OK <port>`."""
VMADDR_CID_ANY = 0xFFFFFFFF

Name = str | tuple[int, int]


class Address(NamedTuple):
    """A parsed address; the scheme decides which fields are set."""

    scheme: str
    path: str = ""
    host: str = ""
    cid: int = VMADDR_CID_ANY
    port: int = 0

    @property
    def unix_name(self) -> str:
        """The path in the form of bind(2) and connect(2)."""
        return "\0" + self.path[1:] if self.path.startswith("@") else self.path


def parse(address: str) -> Address:
    """Return the parts of an address.

    Raises:
        InvalidArgument: The address is wrong, or its scheme is not supported.
    """
    scheme, separator, rest = address.partition("://")
    scheme = scheme.rpartition("+")[2]
    if not separator:
        raise InvalidArgument(f"address {address!r} has no scheme")
    if scheme == "unix":
        if not rest or rest == "@":
            raise InvalidArgument(f"address {address!r} has no path")
        return Address(scheme, path=rest)
    if scheme not in ("vsock", "hvsock", "tcp"):
        raise InvalidArgument(f"Scheme {scheme!r} is not supported")
    place, separator, port = rest.rpartition(":")
    if not (separator and (place or scheme == "tcp")):
        raise InvalidArgument(f"address {address!r} has no port")
    if scheme == "tcp":
        if ":" in place and not (place.startswith("[") and place.endswith("]")):
            raise InvalidArgument(f"the IPv6 address in {address!r} needs brackets")
        host = place.removeprefix("[").removesuffix("]")
        return Address(scheme, host=host, port=_number(port, address, 0xFFFF))
    if scheme == "hvsock":
        return Address(scheme, path=place, port=_number(port, address))
    cid = VMADDR_CID_ANY if place == "-1" else _number(place, address)
    return Address(scheme, cid=cid, port=_number(port, address))


def listen(address: str, backlog: int = 1024) -> gsocket.socket:
    """Return a listening socket. A unix socket that no process serves is replaced.

    Raises:
        InvalidArgument: The address is wrong.
        OSError: From getaddrinfo(3), bind(2) or listen(2).
    """
    parsed = parse(address)
    if parsed.scheme == "tcp":
        return _listen_tcp(parsed, backlog)
    if parsed.scheme == "vsock":
        sock = gsocket.socket(gsocket.AF_VSOCK, gsocket.SOCK_STREAM)
        name: Name = (parsed.cid, parsed.port)
    else:
        sock = gsocket.socket(gsocket.AF_UNIX, gsocket.SOCK_STREAM)
        name = parsed.unix_name
        if parsed.scheme == "hvsock":
            name = f"{name}_{parsed.port}"
    try:
        if isinstance(name, str) and not name.startswith("\0"):
            _remove_stale(name)
        sock.bind(name)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def dial(address: str, timeout: float | None = None) -> gsocket.socket:
    """Return a socket connected within `timeout` seconds.

    With hvsock, attempts are repeated until then; without a timeout, one attempt is made.

    Raises:
        InvalidArgument: The address is wrong.
        DeadlineExceeded: The timeout has passed.
        OSError: From getaddrinfo(3) or connect(2).
    Blocks: the greenlet.
    """
    parsed = parse(address)
    deadline = None if timeout is None else monotonic() + timeout
    try:
        if parsed.scheme == "hvsock":
            return _connect_hvsock(parsed, deadline)
        if parsed.scheme == "vsock":
            return _connect(gsocket.AF_VSOCK, (parsed.cid, parsed.port), timeout)
        if parsed.scheme == "tcp":
            return _connect_tcp(parsed, timeout)
        return _connect(gsocket.AF_UNIX, parsed.unix_name, timeout)
    except TimeoutError:
        raise DeadlineExceeded(f"connecting to {address}: out of time") from None


def _number(text: str, address: str, largest: int = 0xFFFFFFFF) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > largest:
        raise InvalidArgument(f"{text!r} in address {address!r} is not a number")
    return int(text)


def _listen_tcp(address: Address, backlog: int) -> gsocket.socket:
    found = gsocket.getaddrinfo(
        address.host or None,
        address.port,
        type=gsocket.SOCK_STREAM,
        flags=gsocket.AI_PASSIVE,
    )
    family, kind, protocol, _name, sockaddr = found[0]
    sock = gsocket.socket(family, kind, protocol)
    try:
        # Connections of a previous server in TIME_WAIT must not keep the port; see tcp(7).
        sock.setsockopt(gsocket.SOL_SOCKET, gsocket.SO_REUSEADDR, 1)
        sock.bind(sockaddr)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_tcp(address: Address, timeout: float | None) -> gsocket.socket:
    sock = gsocket.create_connection((address.host or "localhost", address.port), timeout)
    sock.settimeout(None)
    return sock


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)


def _connect(family: int, name: Name, timeout: float | None) -> gsocket.socket:
    sock = gsocket.socket(family, gsocket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(name)
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_hvsock(address: Address, deadline: float | None) -> gsocket.socket:
    while True:
        left = HVSOCK_ATTEMPT if deadline is None else max(0.0, deadline - monotonic())
        try:
            return _attempt_hvsock(address, min(left, HVSOCK_ATTEMPT))
        except OSError as error:
            if deadline is None:
                raise
            if monotonic() + HVSOCK_PAUSE >= deadline:
                text = f"connecting to {address.path}:{address.port}: {error}"
                raise DeadlineExceeded(text) from error
        sleep(HVSOCK_PAUSE)


def _attempt_hvsock(address: Address, timeout: float) -> gsocket.socket:
    deadline = monotonic() + timeout
    sock = _connect(gsocket.AF_UNIX, address.unix_name, timeout)
    try:
        sock.settimeout(max(0.0, deadline - monotonic()))
        sock.sendall(b"CONNECT %d\n" % address.port)
        answer = _read_line(sock, deadline)
        if not answer.startswith(b"OK"):
            raise ConnectionRefusedError(f"the hypervisor answered {answer!r}")
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def _read_line(sock: gsocket.socket, deadline: float) -> bytes:
    """Return one line; the bytes behind it, which the guest sent, stay in the socket."""
    line = b""
    while not line.endswith(b"\n"):
        sock.settimeout(max(0.0, deadline - monotonic()))
        seen = sock.recv(LONGEST_ANSWER, gsocket.MSG_PEEK)
        end = seen.find(b"\n") + 1 or len(seen)
        line += sock.recv(end)
        if not seen or len(line) > LONGEST_ANSWER:
            raise ConnectionRefusedError(f"the hypervisor answered {line!r}")
    return line
