"""Greenlets for handlers: one for all handlers that do not wait, one more for each that waits."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from gevent.hub import get_hub
from greenlet import getcurrent, greenlet

MOST_IDLE = 16
"""Greenlets kept for later calls."""


class Job(Protocol):
    """A call; `run` must not raise."""

    def run(self, worker: greenlet) -> None: ...


class Workers:
    """A pool of greenlets that start jobs in the order given, each up to its first wait.

    The hub switches to a worker, which runs job after job. A job that waits returns control to the
    hub, which continues with the next worker: a job that never waits costs no switch, and a job
    that waits delays no other.
    """

    def __init__(self) -> None:
        self._hub = get_hub()
        self._idle: list[greenlet] = []
        self._jobs: deque[Job] = deque()

    def run(self, jobs: list[Job]) -> None:
        """Run each job until it has ended or waits. Hub only."""
        self._jobs.extend(jobs)
        while self._jobs:
            worker = self._idle.pop() if self._idle else greenlet(self._work, self._hub)
            worker.switch()

    def _work(self) -> None:
        current = getcurrent()
        while True:
            while self._jobs:
                self._jobs.popleft().run(current)
            if len(self._idle) >= MOST_IDLE:
                return
            self._idle.append(current)
            self._hub.switch()
