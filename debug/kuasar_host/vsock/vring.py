"""One ring as the front end describes it, and its queue once it runs."""

from __future__ import annotations

import contextlib
import os
import select

from kuasar_host.vsock.loop import Loop
from kuasar_host.vsock.memory import GuestMemory
from kuasar_host.vsock.virtqueue import RingAddresses, Virtqueue


class VringError(Exception):
    """A descriptor that cannot serve a ring."""


class Vring:
    """One ring: the descriptors that notify both sides, its addresses, its queue."""

    def __init__(self, loop: Loop) -> None:
        self.size = 0
        self.next_available = 0
        # QEMU never enables the rings of some devices: they start enabled.
        self.enabled = True
        self.queue: Virtqueue | None = None
        self._loop = loop
        self._addresses: RingAddresses | None = None
        self._kick: int | None = None
        self._call: int | None = None
        self._error: int | None = None

    def set_addresses(self, descriptors: int, used: int, available: int) -> None:
        """Set the addresses of its parts in the front end."""
        self._addresses = RingAddresses(descriptors, used, available)

    def complete(self) -> bool:
        """Return whether the front end has sent everything that the ring needs to run."""
        known = self._addresses is not None and self._kick is not None
        return known and self.size > 0 and self.enabled

    def start(self, memory: GuestMemory) -> Virtqueue:
        """Start the queue.

        Raises:
            BadAddress: a part of the ring is outside the shared memory.
        """
        assert self._addresses is not None
        self.queue = Virtqueue(memory, self.size, self._addresses, self.next_available, self)
        return self.queue

    def detach(self) -> Virtqueue:
        """Stop and keep the position; the caller releases the queue once it is no longer used."""
        assert self.queue is not None
        queue, self.queue = self.queue, None
        self.next_available = queue.next_available
        return queue

    def set_kick(self, fd: int) -> None:
        """Take ownership of `fd`.

        Raises:
            VringError: epoll cannot wait for it.
        """
        self._close_kick()
        os.set_blocking(fd, False)
        try:
            self._loop.watch(fd, select.EPOLLIN, self._on_kick)
        except OSError as error:
            os.close(fd)
            raise VringError(f"kick descriptor: {error}") from error
        self._kick = fd

    def set_call(self, fd: int | None) -> None:
        """Take ownership of `fd`."""
        self._call = _replace(self._call, fd)

    def set_error(self, fd: int | None) -> None:
        """Take ownership of `fd`."""
        self._error = _replace(self._error, fd)

    def close(self) -> None:
        """Close the descriptors; the ring needs new ones to run again."""
        self._close_kick()
        self.set_call(None)
        self.set_error(None)

    def interrupt(self) -> None:
        """Notify the driver."""
        _signal(self._call)

    def error(self) -> None:
        """Notify the front end that the ring is broken."""
        _signal(self._error)

    def _close_kick(self) -> None:
        if self._kick is not None:
            self._loop.unwatch(self._kick)
            os.close(self._kick)
            self._kick = None

    def _on_kick(self, _events: int) -> None:
        # This only wakes the loop, which serves every ring after each batch of events.
        try:
            if self._kick is not None and not os.read(self._kick, 8):
                self._close_kick()
        except BlockingIOError:
            pass
        except OSError:
            self._close_kick()


def _replace(old: int | None, new: int | None) -> int | None:
    if old is not None:
        os.close(old)
    if new is not None:
        os.set_blocking(new, False)
    return new


def _signal(fd: int | None) -> None:
    # The counter is full: the other side has been notified already.
    if fd is not None:
        with contextlib.suppress(OSError):
            os.write(fd, b"\1\0\0\0\0\0\0\0")
