"""Streams over a port on which the agent listens and the host connects.

One connection at a time has the stream; others wait in the backlog. When a peer goes, the bytes
that the kernel had taken for it are lost with it, the rest goes to its successor. No kernel says
how many of them were read: SIOCOUTQ counts memory on a unix socket, on vsock (since Linux 6.11)
the bytes that the host's device has not fetched, and nothing after a hang-up on either.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any

import gevent
from gevent.socket import AF_VSOCK, socket

from kuasar_agent.log import get_logger
from kuasar_agent.stdio.descriptors import hung_up
from kuasar_agent.stdio.sink import Sink

log = get_logger(__name__)

CHUNK = 64 * 1024

MOMENT = 0.1
"""Seconds for the hypervisor to hand the last bytes to a reader of vsock."""

PROBE = 0.2
"""Seconds between the two halves of a hang-up: hypervisors may tell the guest one by one."""

_PAUSE = 0.01

Listen = Callable[[int], socket]
"""Opens a listening socket on a port of the guest."""

Admit = Callable[[Any], bool]
"""Decides by its address whether a peer may have the stream."""


class _Acceptor:
    """A listening socket and the one admitted connection that has the stream."""

    def __init__(self, listener: socket, admit: Admit) -> None:
        self._listener = listener
        self._admit = admit
        self.peer: socket | None = None

    def connection(self) -> socket:
        """Return the current peer, else wait for the next one.

        Raises: OSError after `close`.
        Blocks: the greenlet.
        """
        while self.peer is None:
            peer, address = self._listener.accept()
            if self._admit(address):
                self.peer = peer
            else:
                log.warning("stream refused", peer=address)
                peer.close()
        return self.peer

    def unread(self) -> int:
        """Return a number that is 0 once the current peer has all that was sent (SIOCOUTQ).

        A unix socket counts until the peer has read it, vsock until the host's device has fetched
        it (Linux 6.11, before that it cannot tell and counts nothing).
        """
        if self.peer is None:
            return 0
        try:
            return int(struct.unpack("i", ioctl(self.peer.fileno(), TIOCOUTQ, bytes(4)))[0])
        except OSError:
            return 0

    def drop(self) -> None:
        """Close the current peer's connection and let the next one take over."""
        if self.peer is not None:
            self.peer.close()
            self.peer = None

    def close(self) -> None:
        self._listener.close()
        self.drop()


class ListenerSink(Sink):
    """A port of the guest from which the host reads output."""

    def __init__(self, listener: socket, admit: Admit) -> None:
        self._acceptor = _Acceptor(listener, admit)
        self._written = 0
        if listener.family == AF_VSOCK:
            self.moment = MOMENT

    @property
    def taken(self) -> bool:
        return self._acceptor.unread() == 0

    @property
    def progress(self) -> int:
        return self._written - self._acceptor.unread()

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            peer = self._acceptor.connection()
            try:
                # The kernel takes bytes for a peer that is gone, such as one that only probed.
                if hung_up(peer.fileno()):
                    raise ConnectionResetError
                sent = peer.send(rest)
            except OSError:
                self._acceptor.drop()
            else:
                rest = rest[sent:]
                self._written += sent

    def finish(self) -> None:
        # Closing the listener would reset a reader that is on its way, perhaps to take over from
        # one that is gone.
        pause = _PAUSE / 16
        while (gone := _gone(self._acceptor.connection())) or self._acceptor.unread():
            if gone:
                self._acceptor.drop()
            else:
                # The reader of a stream that has ended counts for one that has read it.
                gevent.sleep(pause)
                pause = min(2 * pause, _PAUSE)
        self._acceptor.close()

    def close(self) -> None:
        self._acceptor.close()


class ListenerSource:
    """A port of the guest to which the host writes input.

    Input ends when a peer closes its sending side, or hangs up after it had sent something. A peer
    that hangs up before probed whether the port is open; after a reset the next one goes on.
    """

    def __init__(self, listener: socket, admit: Admit) -> None:
        self._acceptor = _Acceptor(listener, admit)
        self._received = False

    def read(self) -> bytes:
        while True:
            peer = self._acceptor.connection()
            try:
                data: bytes = peer.recv(CHUNK)
            except OSError:
                self._acceptor.drop()
                continue
            if data:
                self._received = True
                return data
            if self._received or not _leaves(peer):
                return b""
            self._acceptor.drop()

    def finish(self) -> None:
        self._acceptor.close()

    def close(self) -> None:
        self._acceptor.close()


def _leaves(peer: socket) -> bool:
    """Return whether a peer closes its receiving side, too, within `PROBE`.

    Blocks: the greenlet.
    """
    deadline = time.monotonic() + PROBE
    while not _gone(peer):
        if time.monotonic() >= deadline:
            return False
        gevent.sleep(_PAUSE)
    return True


def _gone(peer: socket) -> bool:
    """Return whether the peer closed both directions, rather than only its sending one.

    A unix socket hangs up then. On vsock poll(2) shows no difference, but even an empty write
    fails (vsock_connectible_sendmsg, Linux net/vmw_vsock/af_vsock.c).
    """
    if hung_up(peer.fileno()):
        return True
    try:
        peer.send(b"")
    except OSError:
        return True
    return False
