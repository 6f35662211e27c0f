"""A native thread that asks the hub for a sign of life, and says who keeps it when none comes.

The hub runs one greenlet at a time: one that computes or blocks without giving way stops every
request. The agent goes on when the greenlet does; what can be done is to name it. gevent's own
monitor would trace every switch for that; a question every half second costs two wake-ups.
"""

from __future__ import annotations

import sys
import threading
import time

import gevent

from kuasar_agent import log as logs
from kuasar_agent.observe.greenlets import stack

log = logs.get_logger(__name__)

PERIOD = 0.5
"""Seconds between two questions."""

LIMIT = 1.0
"""Seconds without an answer that are a stall; one longer by `PERIOD` is never missed."""


class StallWatch:
    """Also measures the hub's lag: the time from a question to its answer."""

    def __init__(self) -> None:
        self.lag = 0.0
        """Seconds that the last question waited."""
        self.worst = 0.0
        self.stalls = 0
        self._loop = gevent.get_hub().loop
        self._hub_thread = threading.get_ident()
        self._answered = threading.Event()
        self._stopped = threading.Event()
        self._asked_at = 0.0

    def start(self) -> None:
        """Watch the calling thread's hub from now on."""
        threading.Thread(target=self._watch, name="stall-watch", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(PERIOD):
            try:
                self._ask()
            except Exception:
                log.exception("stall watch")

    def _ask(self) -> None:
        self._answered.clear()
        self._asked_at = time.monotonic()
        self._loop.run_callback_threadsafe(self._answer)
        if self._answered.wait(LIMIT):
            return
        self.stalls += 1
        where = stack(sys._current_frames().get(self._hub_thread))
        log.error("the hub is blocked", s=LIMIT, stack=" < ".join(where))
        self._answered.wait()
        log.warning("the hub runs again", s=f"{self.lag:.1f}")

    def _answer(self) -> None:
        """In the hub."""
        self.lag = time.monotonic() - self._asked_at
        self.worst = max(self.worst, self.lag)
        self._answered.set()
        logs.report_dropped()
