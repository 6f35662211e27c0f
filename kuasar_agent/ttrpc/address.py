"""Addresses and the sockets behind them.

    unix:///path         stream socket
    unix://@name         abstract stream socket
    vsock://cid:port     AF_VSOCK; cid -1 is any when listening
    hvsock:///path:port  a hypervisor's unix socket that leads to the guest's vsock port

A prefix such as `ttrpc+` is dropped.
"""

from __future__ import annotations

import os
import socket as stdlib_socket
import time

import gevent
from gevent.socket import AF_UNIX, SOCK_STREAM, socket

from kuasar_agent.ttrpc.status import InvalidArgument

# One refused or silent attempt through a hypervisor's socket, and the pause after it (seconds).
_HYBRID_ATTEMPT, _HYBRID_PAUSE = 1.0, 0.02
_LINE_LIMIT = 64

Name = str | tuple[int, int]


def listen(address: str, backlog: int = 1024) -> socket:
    """A listening socket. Raises InvalidArgument for a bad address and OSError from the kernel."""
    scheme, rest = _split(address)
    if scheme == "unix":
        server = socket(AF_UNIX, SOCK_STREAM)
        name: Name = _unix_name(rest)
        _remove_stale(_unix_name(rest))
    elif scheme == "vsock":
        server = socket(stdlib_socket.AF_VSOCK, SOCK_STREAM)
        name = _vsock_name(rest)
    else:
        raise InvalidArgument(f"Scheme {scheme!r} is not supported")
    try:
        server.bind(name)
        server.listen(backlog)
    except OSError:
        server.close()
        raise
    return server


def dial(address: str, timeout: float) -> socket:
    """A connected socket; attempts through a hypervisor's socket are repeated until `timeout`.

    Raises TimeoutError, other OSErrors of connect(2), and InvalidArgument for a bad address.
    """
    scheme, rest = _split(address)
    if scheme == "unix":
        return _connect(socket(AF_UNIX, SOCK_STREAM), _unix_name(rest), timeout)
    if scheme == "vsock":
        return _connect(socket(stdlib_socket.AF_VSOCK, SOCK_STREAM), _vsock_name(rest), timeout)
    if scheme == "hvsock":
        return _dial_hybrid(rest, timeout)
    raise InvalidArgument(f"Scheme {scheme!r} is not supported")


def _split(address: str) -> tuple[str, str]:
    scheme, separator, rest = address.partition("://")
    if not separator:
        raise InvalidArgument(f"{address!r} is not an address")
    return scheme.rpartition("+")[2], rest


def _unix_name(rest: str) -> str:
    return "\0" + rest[1:] if rest.startswith("@") else rest


def _remove_stale(name: str) -> None:
    """Unlink a socket file whose server is gone: the kernel leaves it behind."""
    if name.startswith("\0"):
        return
    with socket(AF_UNIX, SOCK_STREAM) as probe:
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            os.unlink(name)
        except OSError:
            # No such file, or somebody listens: bind will tell.
            pass


def _vsock_name(rest: str) -> tuple[int, int]:
    cid, _, port = rest.partition(":")
    try:
        return int(cid) & 0xFFFFFFFF, int(port)
    except ValueError:
        raise InvalidArgument(f"{rest!r} is not <cid>:<port>") from None


def _connect(client: socket, name: Name, timeout: float) -> socket:
    try:
        client.settimeout(timeout)
        client.connect(name)
        client.settimeout(None)
    except BaseException:
        client.close()
        raise
    return client


def _dial_hybrid(rest: str, timeout: float) -> socket:
    path, _, port = rest.rpartition(":")
    if not path or not port.isdigit():
        raise InvalidArgument(f"{rest!r} is not <path>:<port>")
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no answer from port {port} through {path}")
        try:
            client = _connect(socket(AF_UNIX, SOCK_STREAM), path, left)
        except (FileNotFoundError, ConnectionRefusedError):
            client = None
        if client is not None and _ask(client, int(port), min(left, _HYBRID_ATTEMPT)):
            return client
        gevent.sleep(_HYBRID_PAUSE)


def _ask(client: socket, port: int, timeout: float) -> bool:
    """Ask for a port; False, with the socket closed, when the answer is not OK."""
    line = b""
    try:
        client.settimeout(timeout)
        client.sendall(b"CONNECT %d\n" % port)
        # Byte by byte: what follows the line is the guest's and stays in the socket.
        while not line.endswith(b"\n") and len(line) < _LINE_LIMIT:
            if not (byte := client.recv(1)):
                break
            line += byte
        client.settimeout(None)
    except OSError:
        line = b""
    if line.startswith(b"OK") and line.endswith(b"\n"):
        return True
    client.close()
    return False
