"""A listening unix socket, watched by the loop."""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Callable

from kuasar_host.vsock.loop import Loop

_RETRY_SECONDS = 0.1


class Listener:
    """A listening socket that hands connections to a callback."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        """Take a socket that listens already."""
        self._loop = loop
        self._socket = sock
        self._callback: Callable[[socket.socket], None] | None = None
        sock.setblocking(False)

    def accept(self, callback: Callable[[socket.socket], None]) -> None:
        """Hand every connection to `callback` as a non-blocking socket."""
        self._callback = callback
        self.resume()

    def pause(self) -> None:
        """Leave connections in the backlog."""
        self._loop.unwatch(self._socket.fileno())

    def resume(self) -> None:
        """Accept connections again."""
        self._loop.watch(self._socket.fileno(), select.EPOLLIN, self._on_connection)

    def _on_connection(self, _events: int) -> None:
        try:
            peer, _address = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # Without descriptors or memory the backlog would keep the socket readable.
            print(f"vsock: accept: {error}", file=sys.stderr, flush=True)
            self.pause()
            self._loop.call_later(_RETRY_SECONDS, self.resume)
            return
        peer.setblocking(False)
        if self._callback is not None:
            self._callback(peer)
