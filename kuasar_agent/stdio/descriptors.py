"""Waiting for descriptors on the hub, with one watcher for a descriptor's whole life."""

from __future__ import annotations

import os
import select
from typing import Any

import gevent
from gevent.hub import get_hub
from gevent.os import make_nonblocking

_READ, _WRITE = 1, 2
_HUNG_UP_PAUSE = 0.02


class ReadEnd:
    """A descriptor to read from without blocking the hub; does not own it."""

    def __init__(self, fd: int) -> None:
        make_nonblocking(fd)
        self.fd = fd
        self._watcher: Any = None

    def descriptors(self) -> list[int]:
        return [self.fd]

    def read(self, size: int) -> bytes:
        """The next bytes, waiting for them; empty at the end of the file. Raises OSError."""
        while True:
            try:
                return os.read(self.fd, size)
            except BlockingIOError:
                self.wait()

    def read_now(self, size: int) -> bytes:
        """What is there already; empty when there is nothing, at the end, and after an error."""
        try:
            return os.read(self.fd, size)
        except OSError:
            return b""

    def wait(self) -> None:
        if self._watcher is None:
            self._watcher = get_hub().loop.io(self.fd, _READ)
        get_hub().wait(self._watcher)

    def forget(self) -> None:
        """To be called before the descriptor is closed."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None


class WriteEnd:
    """A descriptor to write to without blocking the hub; does not own it."""

    def __init__(self, fd: int) -> None:
        make_nonblocking(fd)
        self.fd = fd
        self._watcher: Any = None

    def descriptors(self) -> list[int]:
        return [self.fd]

    def write_all(self, data: bytes) -> None:
        """Write everything, however long that takes. Raises OSError."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:
                self.wait()

    def wait(self) -> None:
        if hung_up(self.fd):
            # epoll reports a hang-up at once for as long as it lasts.
            gevent.sleep(_HUNG_UP_PAUSE)
            return
        if self._watcher is None:
            self._watcher = get_hub().loop.io(self.fd, _WRITE)
        get_hub().wait(self._watcher)

    def forget(self) -> None:
        """To be called before the descriptor is closed."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None


def poll_events(fd: int, events: int = 0) -> int:
    """What poll(2) says about a descriptor at this moment."""
    poll = select.poll()
    poll.register(fd, events)
    return sum(found for _, found in poll.poll(0))


def hung_up(fd: int) -> bool:
    """Whether nobody is at the other end."""
    return bool(poll_events(fd) & (select.POLLHUP | select.POLLERR))
