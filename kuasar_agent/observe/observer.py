"""The observer of the agent: counts its calls, answers the Agent service, obeys two signals."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import gevent
import gevent.event

from kuasar_agent import log as logs
from kuasar_agent.blocking import off_hub
from kuasar_agent.boot.timeline import now_ms
from kuasar_agent.errors import FailedPrecondition
from kuasar_agent.observe import calls

if TYPE_CHECKING:
    from kuasar_agent.boot.timeline import Step, Timeline
    from kuasar_agent.observe.leaks import Leak, Leaks
    from kuasar_agent.observe.parts import Parts
    from kuasar_agent.observe.stall import StallWatch
    from kuasar_agent.observe.tracing import Tracing
    from kuasar_agent.ttrpc.call import Interceptor

log = logs.get_logger(__name__)

SETTLE = 0.2
"""Seconds left to the first calls before the leak report and the stall watch are set up."""


class Observer:
    """Source of metrics, leak reports and dumps; SIGUSR1 toggles tracing, SIGUSR2 dumps."""

    def __init__(self, parts: Parts, timeline: Timeline | None, trace_endpoint: str) -> None:
        """Observe `parts`, which started as `timeline` says; spans go to `trace_endpoint`.

        `trace_endpoint` is `http://HOST:PORT` or `vsock://CID:PORT`.
        """
        self.serving_ms = parts.serving_ms
        self.calls = calls.Calls()
        self.tracing_on = False
        self._parts = parts
        self._timeline = timeline
        self._trace_endpoint = trace_endpoint
        self._tracing: Tracing | None = None
        self._boot_told = False
        self._watch: StallWatch | None = None
        self._leaks: Leaks | None = None
        self._settled = gevent.event.Event()
        self._signals: list[object] = []

    def start(self, *, trace: bool) -> None:
        """Count calls and obey signals at once, and set up the rest after `SETTLE`.

        Blocks: the greenlet, for `SETTLE`.
        """
        self._intercept()
        self._signals.append(gevent.signal_handler(signal.SIGUSR1, self.on_toggle))
        # gevent would call its handler from the hub, which a greenlet may block.
        signal.signal(signal.SIGUSR2, lambda *_: self.write_dump())
        if trace:
            self.toggle_tracing()
        gevent.sleep(SETTLE)
        try:
            self._settle()
        finally:
            self._settled.set()

    def steps(self) -> list[Step]:
        """Return the steps of start-up; none when the agent is an ordinary process."""
        return [] if self._timeline is None else self._timeline.steps

    def metrics(self) -> str:
        """Return a page in Prometheus' text format.

        Raises:
            FailedPrecondition: setting up the stall watch failed.
        """
        from kuasar_agent.observe.metrics import render

        self._settled.wait()
        if self._watch is None:
            raise FailedPrecondition("the agent is not observed")
        return render(self._parts, self.calls, self._watch, self._timeline)

    def leaks(self) -> list[Leak]:
        """Return the resources that no part of the agent accounts for.

        Raises:
            FailedPrecondition: setting up the leak report failed.
        """
        self._settled.wait()
        if self._leaks is None:
            raise FailedPrecondition("the agent is not observed")
        return self._leaks.report()

    def dump(self) -> list[str]:
        """Return the dump as log lines."""
        from kuasar_agent.observe.dump import dump

        stamp = f"{now_ms() / 1000:.6f}"
        return [
            logs.format_line(stamp, "info", f"dump: {entry.kind}", entry.fields)
            for entry in dump(self._parts)
        ]

    def write_dump(self) -> None:
        """Write the dump to the log, at any log level; runs in a signal handler."""
        from kuasar_agent.observe.dump import dump

        try:
            for entry in dump(self._parts):
                logs.write(logs.ERROR, f"dump: {entry.kind}", src="observe", **entry.fields)
        except Exception:
            log.exception("dump failed")

    def on_toggle(self) -> None:
        """Handle SIGUSR1: open the log's console again, which may be a new one; toggle tracing."""
        from kuasar_agent.boot.standard_fds import attach_log

        try:
            attach_log()
        except OSError as error:
            log.error("log not opened again", error=error)
        self.toggle_tracing()

    def toggle_tracing(self) -> None:
        """Turn tracing on or off; a failure is logged and leaves it off."""
        if self.tracing_on:
            assert self._tracing is not None
            self._tracing.end()
            self.tracing_on = False
        else:
            try:
                self._begin_tracing()
            except Exception as error:
                log.error("no tracing", error=error)
        self._intercept()
        log.info("tracing", on=self.tracing_on, to=self._trace_endpoint)

    def _begin_tracing(self) -> None:
        if self._tracing is None:
            if not self._trace_endpoint:
                raise ValueError("no endpoint was given")
            tracing = off_hub(_load_tracing)
            attributes = {"host.name": os.uname().nodename, "os.version": os.uname().release}
            self._tracing = tracing(self._trace_endpoint, attributes)
        self._tracing.begin()
        self.tracing_on = True
        if not self._boot_told and self.steps():
            self._boot_told = True
            self._tracing.boot(self.steps(), self.serving_ms)

    def _intercept(self) -> None:
        chain: list[Interceptor] = [self.calls]
        if self.tracing_on and self._tracing is not None:
            chain.insert(0, self._tracing)
        if logs.is_tracing():
            chain.append(calls.log_calls)
        self._parts.server.intercept(chain)

    def _settle(self) -> None:
        # The thread pool opens its descriptors with the first call: before the report lists them.
        off_hub(os.getpid)
        from kuasar_agent.observe.leaks import Leaks
        from kuasar_agent.observe.stall import StallWatch

        self._leaks = Leaks(self._parts)
        self._watch = StallWatch()
        self._watch.start()


def _load_tracing() -> type[Tracing]:
    """Import and return `Tracing`. Blocks: a thread.

    Raises:
        ModuleNotFoundError: the extra is not installed, as in the default image.
    """
    try:
        from kuasar_agent.observe.tracing import Tracing
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: kuasar-agent[tracing] is needed") from None
    return Tracing
