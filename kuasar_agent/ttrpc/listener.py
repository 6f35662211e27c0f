"""A listening socket on gevent's loop that survives running out of file descriptors."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from gevent.hub import get_hub

if TYPE_CHECKING:
    from gevent._types import _TimerWatcher

logger = logging.getLogger(__name__)

READ = 1
ACCEPTS_AT_ONCE = 32
"""Before the loop's other watchers have a turn."""
FIRST_PAUSE = 0.01
LONGEST_PAUSE = 1.0
"""Seconds without accepting after an error; doubles from the first to the longest."""


class AnySocket(Protocol):
    """What a standard and a gevent socket have in common, as far as it is used here."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class Listener:
    """Hands each accepted socket to `accepted`, called in the hub."""

    def __init__(self, sock: AnySocket, accepted: Callable[[socket.socket], None]) -> None:
        self._given = sock
        # A gevent socket's accept would wait; a second descriptor of our own does not.
        self._socket = socket.socket(fileno=os.dup(sock.fileno()))
        self._socket.setblocking(False)
        self._accepted = accepted
        self._loop = get_hub().loop
        self._watcher = self._loop.io(self._socket.fileno(), READ)
        self._watcher.start(self._on_readable)
        self._pause = FIRST_PAUSE
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
                sock, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._back_off(error)
                return
            self._pause = FIRST_PAUSE
            self._accepted(sock)
            if self._socket.fileno() < 0:
                return

    def _back_off(self, error: OSError) -> None:
        logger.warning("cannot accept, trying again in %.2f s: %s", self._pause, error)
        self._watcher.stop()
        self._timer = self._loop.timer(self._pause)
        self._timer.start(self._resume)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _resume(self) -> None:
        self._stop_timer()
        self._watcher.start(self._on_readable)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
