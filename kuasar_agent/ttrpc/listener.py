"""An accept loop in the hub, without a greenlet, that survives running out of descriptors."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from gevent.hub import get_hub

if TYPE_CHECKING:
    from gevent._types import _TimerWatcher

logger = logging.getLogger(__name__)

READ = 1
ACCEPTS_AT_ONCE = 32
"""Connections accepted before the loop runs its other watchers."""


class AnySocket(Protocol):
    """The common part of standard and gevent sockets that is used here."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class Listener:
    """A listening socket, which it owns; it hands over each accepted connection.

    An error of accept(2), such as EMFILE, is logged and accepting pauses, because the connection
    stays in the backlog and the socket readable: without a pause the loop would spin.
    """

    min_delay = 0.01
    """Seconds without accepting after a first error, as in gevent.baseserver."""
    max_delay = 1.0
    """The delay doubles with each error in a row, up to this."""

    def __init__(self, sock: AnySocket, accepted: Callable[[socket.socket, Any], None]) -> None:
        """Accept from now on. `accepted` gets the socket and its address, in the hub.

        It must neither wait nor raise.
        """
        self._given = sock
        # The accept of a gevent socket would wait; that of a standard socket does not.
        self._socket = socket.socket(fileno=os.dup(sock.fileno()))
        self._socket.setblocking(False)
        self._accepted = accepted
        self._loop = get_hub().loop
        self._watcher = self._loop.io(self._socket.fileno(), READ)
        self._watcher.start(self._on_readable)
        self._delay = self.min_delay
        self._timer: _TimerWatcher | None = None

    def close(self) -> None:
        """Stop accepting and close the socket."""
        self._stop_timer()
        self._watcher.stop()
        self._watcher.close()
        self._socket.close()
        self._given.close()

    def _on_readable(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._back_off(error)
                return
            self._delay = self.min_delay
            self._accepted(sock, address)
            if self._socket.fileno() < 0:
                return

    def _back_off(self, error: OSError) -> None:
        logger.warning("cannot accept, trying again in %.2f s: %s", self._delay, error)
        self._watcher.stop()
        self._timer = self._loop.timer(self._delay)
        self._timer.start(self._resume)
        self._delay = min(self._delay * 2, self.max_delay)

    def _resume(self) -> None:
        self._stop_timer()
        self._watcher.start(self._on_readable)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
