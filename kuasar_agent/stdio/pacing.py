"""Pauses that let small writes gather, and the time for which a reader has taken nothing."""

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


FREE_MESSAGES = 16
"""Messages that may be unread before small ones are put off."""

SOME_MESSAGES = 48
"""Messages that may be unread before small ones are put off for long."""

SHORT_GAP, LONG_GAP = 0.04, 0.5
"""Seconds between small messages."""


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


class MessagePause:
    """The wait before the next small message, so that a host that pauses has room for them.

    Since ttrpc 1.2.9 a Go client holds 64 messages of a stream; while that is full for a second,
    it drops the stream and tells the server nothing. Its grants follow bytes, not messages. With
    these pauses a client may stand still for 10 seconds, or for 2 where a person may be waiting
    for an echo.

    A grant says that the messages sent before the *previous* grant have been read: containerd
    grants 64 KiB once it has read up to 128 KiB less than that leaves.
    """

    def __init__(self, prompt: bool, clock: Clock = time.monotonic) -> None:
        """`prompt`: the process has an input, so its output may be awaited."""
        self._clock = clock
        self._prompt = prompt
        self._before_grant = self._since_grant = 0
        self._sent_at = float("-inf")

    def before_send(self) -> float:
        """Return the seconds for which a small message has to wait."""
        return self._sent_at + self._gap() - self._clock()

    def after_send(self) -> None:
        """Record a message."""
        self._since_grant += 1
        self._sent_at = self._clock()

    def after_grant(self) -> None:
        """Record a grant."""
        self._before_grant, self._since_grant = self._since_grant, 0

    def _gap(self) -> float:
        unread = self._before_grant + self._since_grant
        if unread < FREE_MESSAGES:
            return 0
        return SHORT_GAP if self._prompt or unread < SOME_MESSAGES else LONG_GAP


class Silence:
    """The time since a number changed, as far as it was looked at."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._progress: int | None = None
        self._since = clock()

    @property
    def seconds(self) -> float:
        return self._clock() - self._since

    def look(self, progress: int) -> None:
        """Begin anew if the number is another one than the last time."""
        if progress != self._progress:
            if self._progress is not None:
                self._since = self._clock()
            self._progress = progress
