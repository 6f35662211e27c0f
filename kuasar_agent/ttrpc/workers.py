"""Greenlets for handlers: one for as long as handlers do not wait, another for each that does."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from gevent.hub import get_hub
from greenlet import getcurrent, greenlet

MOST_IDLE = 16


class Job(Protocol):
    """A call to be run; `run` must not raise."""

    def run(self, worker: greenlet) -> None: ...


class Workers:
    """Runs jobs in the order given, each up to the point where it first waits.

    The hub switches to a worker, which runs job after job. A job that waits gives control back to
    the hub, which goes on with the next worker: a job that never waits costs no switch of its own,
    and one that waits delays nobody.
    """

    def __init__(self) -> None:
        self._hub = get_hub()
        self._idle: list[greenlet] = []
        self._jobs: deque[Job] = deque()

    def run(self, jobs: list[Job]) -> None:
        """Hub only. Every job has ended or waits when this returns."""
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
