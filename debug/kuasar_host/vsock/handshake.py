"""The server of hybrid vsock's handshake: `CONNECT <port>` on a unix socket."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from kuasar_host.vsock.listener import Listener
from kuasar_host.vsock.loop import Loop

# "CONNECT 4294967295\r\n" has 20 bytes.
MAX_LINE = 32
_MAX_PORT = 0xFFFFFFFF
_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


def parse(line: bytes) -> int | None:
    """Return the port in a line without its newline, or None."""
    words = line.split()
    if len(words) != 2 or words[0].upper() != b"CONNECT" or not words[1].isdigit():
        return None
    port = int(words[1])
    return port if port <= _MAX_PORT else None


def serve(loop: Loop, listener: Listener, connect: Callable[[socket.socket, int], None]) -> None:
    """Read each client's line and call `connect`; a bad line closes the connection."""

    def connected(sock: socket.socket) -> None:
        def readable(events: int) -> None:
            try:
                line = _take_line(sock)
            except OSError:
                line = b""
            if line is None and not events & _ENDED:
                return
            port = parse(line or b"")
            loop.unwatch(sock.fileno())
            if port is None:
                sock.close()
            else:
                connect(sock, port)

        loop.watch(sock.fileno(), _EVENTS, readable)

    listener.accept(connected)


def _take_line(sock: socket.socket) -> bytes | None:
    """Return the line without its newline, or None while it is incomplete.

    The bytes after it stay in the socket. An empty line stands for the end of the input and for a
    line that is too long.
    """
    try:
        seen = sock.recv(MAX_LINE, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    end = seen.find(b"\n")
    if end >= 0:
        return sock.recv(end + 1)[:-1]
    return None if 0 < len(seen) < MAX_LINE else b""
