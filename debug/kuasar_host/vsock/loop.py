"""A single-threaded epoll loop: descriptors with callbacks, and a few timers."""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable
from itertools import count


class Loop:
    """Callbacks run one at a time; `step` runs after each batch of events.

    A callback may be called for an event that an earlier one in the batch made void: it must
    treat "would block" as normal.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(event mask)` on events.

        Raises:
            OSError: epoll refuses the descriptor.
        """
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`, which must still be open; without effect if it is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` once, after so many seconds."""
        entry = (time.monotonic() + seconds, next(self._sequence), callback)
        heapq.heappush(self._timers, entry)

    def run(self, step: Callable[[], bool]) -> None:
        """Run without an end; while `step` returns True it is called again without waiting."""
        busy = step()
        while True:
            for fd, events in self._epoll.poll(0 if busy else self._timeout()):
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback(events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
            busy = step()

    def _timeout(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
