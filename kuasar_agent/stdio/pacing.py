"""Pauses that let small writes gather: one for reading a pipe, one for messages to a host."""

from __future__ import annotations

import time
from collections.abc import Callable

from kuasar_agent.stdio.pipes import CHUNK

Clock = Callable[[], float]

PLENTY = 64 * 1024
"""Bytes of one read that are worth a wake-up of the agent and a packet of vsock."""

BURST = 0.004
"""Seconds after a read of less than `PLENTY` within which another read is put off."""

GATHER = 0.002
"""Seconds that such a read is put off, in which the process may fill its pipe."""

MOST_UNPAUSED = 1024
"""Reads without a pause after a pause in which the pipe was filled, at most."""


class ReadPause:
    """The pause before the next read of a pipe, so that few reads carry many small writes.

    A process that fills the pipe during a pause has to wait for the rest of it. Then the next 1,
    2, 4 … `MOST_UNPAUSED` reads are not put off, before another pause is tried.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._small_at = float("-inf")
        self._paused = False
        self._unpaused = self._in_a_row = 0

    def before_read(self) -> float:
        """Return the seconds to put off the next read."""
        self._paused = False
        if self._clock() - self._small_at >= BURST:
            return 0
        if self._unpaused:
            self._unpaused -= 1
            return 0
        self._paused = True
        return GATHER

    def after_read(self, size: int) -> None:
        """Record the size of the read."""
        if self._paused:
            filled = size >= CHUNK
            self._in_a_row = min(2 * self._in_a_row or 1, MOST_UNPAUSED) if filled else 0
            self._unpaused = self._in_a_row
        self._small_at = float("-inf") if size >= PLENTY else self._clock()
