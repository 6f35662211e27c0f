"""Who is at the other end of a connection, and policies on whom to serve.

A policy is a function of the accepted socket and its Peer, called before a byte is read; when it
says no, the connection is closed without a word (as Go's handshaker does).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

_UCRED = Struct("iII")


class Peer(NamedTuple):
    """Which fields are known depends on the address family."""

    family: int
    cid: int | None = None
    """AF_VSOCK: the peer's context id."""
    port: int | None = None
    pid: int | None = None
    """AF_UNIX (SO_PEERCRED): the process that connected."""
    uid: int | None = None
    gid: int | None = None


Policy = Callable[[socket.socket, Peer], bool]


def peer_of(sock: socket.socket) -> Peer:
    """Raises OSError when the peer is gone already."""
    if sock.family == socket.AF_VSOCK:
        cid, port = sock.getpeername()
        return Peer(sock.family, cid=cid, port=port)
    if sock.family == socket.AF_UNIX:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, gid = _UCRED.unpack(data)
        return Peer(sock.family, pid=pid, uid=uid, gid=gid)
    return Peer(sock.family)


def same_user(_sock: socket.socket, peer: Peer) -> bool:
    """Only our own effective user and group, which only a unix socket can tell."""
    return peer.uid == os.geteuid() and peer.gid == os.getegid()


def vsock_host_only(_sock: socket.socket, peer: Peer) -> bool:
    """On vsock only the host: a guest's own processes can reach its vsock ports too."""
    return peer.family != socket.AF_VSOCK or peer.cid == socket.VMADDR_CID_HOST
