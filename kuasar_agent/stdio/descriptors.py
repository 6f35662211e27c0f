"""Owning ends of pipes, terminals and devices that wait on the hub instead of blocking it."""

from __future__ import annotations

import os
import select
import struct
from fcntl import ioctl
from termios import FIONREAD
from typing import Any

import gevent
from gevent.hub import get_hub
from gevent.os import make_nonblocking

_READ, _WRITE = 1, 2
_HUNG_UP_PAUSE = 0.02


class _End:
    """A descriptor with one watcher for its whole life."""

    def __init__(self, fd: int, event: int) -> None:
        make_nonblocking(fd)
        self.fd = fd
        """-1 once closed."""
        self._event = event
        self._watcher: Any = None

    def descriptors(self) -> list[int]:
        return [self.fd]

    @property
    def closed(self) -> bool:
        return self.fd < 0

    def wait(self) -> None:
        """Wait until the next call of the kernel is worth making. Blocks: the greenlet."""
        if self._watcher is None:
            self._watcher = get_hub().loop.io(self.fd, self._event)
        get_hub().wait(self._watcher)

    def unread(self) -> int:
        """Return the bytes that are in the pipe, the FIFO or the terminal (FIONREAD)."""
        return int(struct.unpack("i", ioctl(self.fd, FIONREAD, bytes(4)))[0])

    def close(self) -> None:
        """Close the descriptor; may be called more than once."""
        if self._watcher is not None:
            # Before the number can become another file's.
            self._watcher.close()
            self._watcher = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class ReadEnd(_End):
    """A descriptor to read from."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, _READ)

    def read(self, size: int) -> bytes:
        """Return the next bytes, waiting for them; none at the end of the file.

        Raises: OSError.
        Blocks: the greenlet.
        """
        while True:
            try:
                return os.read(self.fd, size)
            except BlockingIOError:
                self.wait()

    def read_now(self, size: int) -> bytes:
        """Return the bytes that are there; none at the end, and none after an error."""
        try:
            return os.read(self.fd, size)
        except OSError:
            return b""


class WriteEnd(_End):
    """A descriptor to write to."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, _WRITE)

    def write_all(self, data: bytes) -> None:
        """Write every byte, however long that takes.

        Raises: OSError.
        Blocks: the greenlet.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:
                self.wait()

    def wait(self) -> None:
        """Wait until the next write is worth a try. Blocks: the greenlet."""
        if hung_up(self.fd):
            # epoll reports a hang-up at once for as long as it lasts.
            gevent.sleep(_HUNG_UP_PAUSE)
        else:
            super().wait()


def poll_events(fd: int, events: int = 0) -> int:
    """Return the events of poll(2) that a descriptor has at this moment."""
    poll = select.poll()
    poll.register(fd, events)
    return sum(found for _, found in poll.poll(0))


def hung_up(fd: int) -> bool:
    """Return whether the other end of a descriptor is closed."""
    return bool(poll_events(fd) & (select.POLLHUP | select.POLLERR))
