"""Where a stream of a process goes: nowhere, or a vsock port on which the host calls.

A `Sink` takes a process's output, a `Source` gives it input. Each stream chooses its own transport
from its own URL.
"""

from __future__ import annotations

import re
import select
import socket as stdlib_socket
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

from gevent.socket import socket

from kuasar_agent.log import get_logger
from kuasar_agent.ttrpc.status import FailedPrecondition, InvalidArgument

log = get_logger(__name__)

CHUNK = 64 * 1024

_PORT = re.compile(r"[0-9]{1,10}")

Listen = Callable[[int], socket]
"""Opens a listening socket on a port of the guest."""

Admit = Callable[[Any], bool]
"""Decides by its address whether a peer may have the stream."""


class Sink(Protocol):
    """The far end of an output stream."""

    def write(self, data: bytes) -> None:
        """Deliver `data`; returns when the transport took all of it, however long that takes."""

    def finish(self) -> None:
        """No more will be written; returns when the end can be seen on the other side."""

    def close(self) -> None:
        """Nobody wants the rest."""


class Source(Protocol):
    """The far end of an input stream."""

    def read(self) -> bytes:
        """The next bytes; empty at the end."""

    def close(self) -> None:
        """Nobody reads any more; a pending `read` ends."""


class StreamPorts:
    """Opens the transports that a URL can name."""

    def __init__(self, listen: Listen, admit: Admit) -> None:
        self._listen = listen
        self._admit = admit

    def sink(self, url: str) -> Sink:
        """Raises InvalidArgument for an unknown form, FailedPrecondition for a taken port."""
        return _VsockSink(self._open(url), self._admit)

    def source(self, url: str) -> Source:
        """Raises as `sink` does."""
        return _VsockSource(self._open(url), self._admit)

    def _open(self, url: str) -> socket:
        port = vsock_port(url)
        try:
            return self._listen(port)
        except OSError as error:
            raise FailedPrecondition(f"cannot listen for {url}: {error.strerror}") from None


def vsock_port(url: str) -> int:
    """The port of `vsock://<any>:<port>` or `hvsock://<any>:<port>`; raises InvalidArgument."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidArgument(f"no transport for stdio {url!r}: {error}") from None
    if parts.scheme not in ("vsock", "hvsock"):
        raise InvalidArgument(f"no transport for stdio {url!r}")
    _, separator, port = (parts.netloc + parts.path).rpartition(":")
    if not separator or not _PORT.fullmatch(port) or int(port) >= 0xFFFFFFFF:
        raise InvalidArgument(f"no port in stdio {url!r}")
    return int(port)


class _Acceptor:
    """Hands out one admitted connection at a time."""

    def __init__(self, listener: socket, admit: Admit) -> None:
        self._listener = listener
        self._admit = admit
        self.peer: socket | None = None

    def connection(self) -> socket:
        """The current peer, else the next one to call. Raises OSError after `close`."""
        while self.peer is None:
            peer, address = self._listener.accept()
            if self._admit(address):
                self.peer = peer
            else:
                log.warning("stream refused", peer=address)
                peer.close()
        return self.peer

    def drop(self) -> None:
        """The current peer is gone; the next one to call takes over."""
        if self.peer is not None:
            self.peer.close()
            self.peer = None

    def close(self) -> None:
        self._listener.close()
        self.drop()


class _VsockSink:
    def __init__(self, listener: socket, admit: Admit) -> None:
        self._acceptor = _Acceptor(listener, admit)

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            peer = self._acceptor.connection()
            try:
                rest = rest[peer.send(rest) :]
            except OSError:
                self._acceptor.drop()

    def finish(self) -> None:
        # Closing the listener would reset a reader that is on its way.
        self._acceptor.connection()
        self._acceptor.close()

    def close(self) -> None:
        self._acceptor.close()


class _VsockSource:
    """Input ends when a peer closes its sending side, or hangs up after it had sent something.

    One that goes without a word was probing whether the port is open.
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
            if self._received or not _hung_up(peer):
                return b""
            self._acceptor.drop()

    def close(self) -> None:
        self._acceptor.close()


def _hung_up(peer: stdlib_socket.socket) -> bool:
    """Whether the peer closed both directions, rather than only its sending one."""
    poll = select.poll()
    poll.register(peer.fileno(), 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
