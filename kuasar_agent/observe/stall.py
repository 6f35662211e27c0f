"""A native thread that checks whether the hub runs, and logs the stack that blocks it.

The hub runs one greenlet at a time: a greenlet that computes or blocks without yielding stops every
request. The watch cannot end it, but names it. gevent's own monitor thread traces every switch of
greenlets for that; a probe every half second costs two wake-ups.
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
"""Seconds between two probes."""

LIMIT = 1.0
"""Seconds without an answer that count as a stall; stalls of `LIMIT + PERIOD` are always seen."""


class StallWatch:
    """The watching thread; it also measures the hub's lag, the time from a probe to its answer."""

    def __init__(self) -> None:
        self.lag = 0.0
        """Seconds from the last probe to its answer."""
        self.worst = 0.0
        self.stalls = 0
        self._loop = gevent.get_hub().loop
        self._hub_thread = threading.get_ident()
        self._answered = threading.Event()
        self._stopped = threading.Event()
        self._probed_at = 0.0

    def start(self) -> None:
        """Start to watch the calling thread's hub."""
        threading.Thread(target=self._watch, name="stall-watch", daemon=True).start()

    def stop(self) -> None:
        """End the thread after its current probe."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(PERIOD):
            try:
                self._probe()
            except Exception:
                log.exception("stall watch")

    def _probe(self) -> None:
        self._answered.clear()
        self._probed_at = time.monotonic()
        self._loop.run_callback_threadsafe(self._answer)
        if self._answered.wait(LIMIT):
            return
        self.stalls += 1
        where = stack(sys._current_frames().get(self._hub_thread))
        log.error("the hub is blocked", s=LIMIT, stack=" < ".join(where))
        self._answered.wait()
        log.warning("the hub runs again", s=f"{self.lag:.1f}")

    def _answer(self) -> None:
        """Note the answer; runs in the hub."""
        self.lag = time.monotonic() - self._probed_at
        self.worst = max(self.worst, self.lag)
        self._answered.set()
        logs.report_dropped()
