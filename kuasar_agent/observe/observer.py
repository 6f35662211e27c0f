"""What watches the agent, put together; it comes to life once the agent listens."""

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
    from kuasar_agent.agent import Agent, ObserveSettings
    from kuasar_agent.boot.timeline import Step
    from kuasar_agent.observe.leaks import Leak, Leaks
    from kuasar_agent.observe.stall import StallWatch
    from kuasar_agent.observe.tracing import Tracing
    from kuasar_agent.ttrpc.call import Interceptor

log = logs.get_logger(__name__)

SETTLE = 0.2
"""Seconds that the first calls have before what is not urgent is set up."""


class Observer:
    """Answers questions about the agent, and obeys SIGUSR1 and SIGUSR2."""

    def __init__(self, agent: Agent, settings: ObserveSettings) -> None:
        self.serving_ms = agent.serving_ms
        self.calls = calls.Calls()
        self.tracing_on = False
        self._agent = agent
        self._settings = settings
        self._tracing: Tracing | None = None
        self._boot_told = False
        self._watch: StallWatch | None = None
        self._leaks: Leaks | None = None
        self._settled = gevent.event.Event()
        self._signals: list[object] = []

    def start(self) -> None:
        """Returns when all is set up; what comes first does not keep the first call waiting."""
        from kuasar_agent.services import agent as service

        self._agent.server.register(service.SERVICE, service.AgentService(self))
        self._intercept()
        self._signals.append(gevent.signal_handler(signal.SIGUSR1, self.on_toggle))
        # Not one of gevent's: it has to come through while a greenlet keeps the hub.
        signal.signal(signal.SIGUSR2, lambda *_: self.write_dump())
        if self._settings.trace:
            self.toggle_tracing()
        gevent.sleep(SETTLE)
        try:
            self._settle()
        finally:
            self._settled.set()

    def steps(self) -> list[Step]:
        """Of start-up; none when the agent is an ordinary process."""
        timeline = self._settings.timeline
        return [] if timeline is None else timeline.steps

    def metrics(self) -> str:
        """A page for Prometheus."""
        from kuasar_agent.observe.metrics import render

        self._settled.wait()
        if self._watch is None:
            raise FailedPrecondition("the agent is not observed")
        return render(self._agent, self.calls, self._watch, self._settings.timeline)

    def leaks(self) -> list[Leak]:
        """What nobody answers for."""
        self._settled.wait()
        if self._leaks is None:
            raise FailedPrecondition("the agent is not observed")
        return self._leaks.report()

    def dump(self) -> list[str]:
        """A line for everything that the agent is doing."""
        from kuasar_agent.observe.dump import dump

        stamp = f"{now_ms() / 1000:.6f}"
        return [
            logs.format_line(stamp, "info", f"dump: {entry.kind}", entry.fields)
            for entry in dump(self._agent)
        ]

    def write_dump(self) -> None:
        """The same to the log, whatever its level."""
        from kuasar_agent.observe.dump import dump

        try:
            for entry in dump(self._agent):
                logs.write(logs.ERROR, f"dump: {entry.kind}", src="observe", **entry.fields)
        except Exception:
            log.exception("dump failed")

    def on_toggle(self) -> None:
        """SIGUSR1: a log on a console that was replaced comes back, and tracing changes over."""
        from kuasar_agent.boot.standard_fds import attach_log

        try:
            attach_log()
        except OSError as error:
            log.error("log not opened again", error=error)
        self.toggle_tracing()

    def toggle_tracing(self) -> None:
        """Trace from now on, or stop; a failure is logged and leaves it off."""
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
        log.info("tracing", on=self.tracing_on, to=self._settings.trace_endpoint)

    def _begin_tracing(self) -> None:
        if self._tracing is None:
            endpoint = self._settings.trace_endpoint
            if not endpoint:
                raise ValueError("no endpoint was given")
            tracing = off_hub(_load_tracing)
            attributes = {"host.name": os.uname().nodename, "os.version": os.uname().release}
            self._tracing = tracing(endpoint, attributes)
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
        self._agent.server.intercept(chain)

    def _settle(self) -> None:
        off_hub(os.getpid)  # the thread pool opens what it keeps open
        from kuasar_agent.observe.leaks import Leaks
        from kuasar_agent.observe.stall import StallWatch

        self._leaks = Leaks(self._agent)
        self._watch = StallWatch()
        self._watch.start()


def _load_tracing() -> type[Tracing]:
    """Raises ModuleNotFoundError where the extra is not installed, as in the default image."""
    try:
        from kuasar_agent.observe.tracing import Tracing
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: kuasar-agent[tracing] is needed") from None
    return Tracing
