"""The process or machine at the other end of a connection, and policies for servers.

A policy is a function of the accepted socket and its Peer, called before a byte is read. If it
returns false, the connection is closed without a frame, as Go's Handshaker does.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

__all__ = ["Peer", "same_user", "vsock_host_only"]

_UCRED = Struct("iII")


class Peer(NamedTuple):
    """The other end of a connection; the address family decides which fields are set."""

    family: int
    cid: int | None = None
    """AF_VSOCK: the context id."""
    port: int | None = None
    """AF_VSOCK, AF_INET, AF_INET6."""
    pid: int | None = None
    """AF_UNIX (SO_PEERCRED): the process that connected."""
    uid: int | None = None
    gid: int | None = None
    host: str | None = None
    """AF_INET, AF_INET6: the IP address."""


Policy = Callable[[socket.socket, Peer], bool]


def peer_of(sock: socket.socket) -> Peer:
    """Return the peer of a connected socket.

    Raises:
        OSError: The peer has disconnected.
    """
    if sock.family == socket.AF_VSOCK:
        cid, port = sock.getpeername()
        return Peer(sock.family, cid=cid, port=port)
    if sock.family == socket.AF_UNIX:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(data)
        return Peer(sock.family, pid=pid, uid=uid, gid=gid)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        host, port, *_ = sock.getpeername()
        return Peer(sock.family, port=port, host=host)
    return Peer(sock.family)


def same_user(_sock: socket.socket, peer: Peer) -> bool:
    """Allow only the server's own effective user and group, which only a unix socket can prove."""
    return peer.uid == os.geteuid() and peer.gid == os.getegid()


def vsock_host_only(_sock: socket.socket, peer: Peer) -> bool:
    """Allow only the host on vsock; processes of the guest can connect to its vsock ports too."""
    return peer.family != socket.AF_VSOCK or peer.cid == socket.VMADDR_CID_HOST
