"""A readers-writer lock for greenlets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gevent.event import Event
from gevent.lock import BoundedSemaphore


class SharedLock:
    """A lock held by any number of greenlets as shared, or by one as exclusive.

    A greenlet that waits for the exclusive lock keeps later ones out, so that it is not starved.
    """

    def __init__(self) -> None:
        self._door = BoundedSemaphore()
        self._inside = 0
        self._empty = Event()
        self._empty.set()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with other shared holders. Blocks: the greenlet."""
        with self._door:
            self._inside += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock alone. Blocks: the greenlet, until every holder has left."""
        with self._door:
            self._empty.wait()
            yield
