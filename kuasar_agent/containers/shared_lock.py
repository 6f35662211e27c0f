"""A lock with two ways in: together with others, or alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gevent.event import Event
from gevent.lock import BoundedSemaphore


class Gate:
    """Whoever wants to be alone keeps newcomers out, then waits for those inside to leave."""

    def __init__(self) -> None:
        self._door = BoundedSemaphore()
        self._inside = 0
        self._empty = Event()
        self._empty.set()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Be inside with others."""
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
    def alone(self) -> Iterator[None]:
        """Be inside with nobody else."""
        with self._door:
            self._empty.wait()
            yield
