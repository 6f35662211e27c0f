"""The agent's state in Prometheus' text format.

https://prometheus.io/docs/instrumenting/exposition_formats/. Nothing is collected but the counts
of calls: everything else is looked up when somebody asks.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from kuasar_agent import __version__
from kuasar_agent.boot.timeline import now_ms
from kuasar_agent.containers.process import Status
from kuasar_agent.log import console
from kuasar_agent.observe import procfs
from kuasar_agent.observe.calls import BUCKETS, Calls
from kuasar_agent.observe.greenlets import all_greenlets
from kuasar_agent.observe.stall import StallWatch
from kuasar_agent.ttrpc.status import Code

if TYPE_CHECKING:
    from kuasar_agent.agent import Agent
    from kuasar_agent.boot.timeline import Timeline

PREFIX = "kuasar_agent_"

Labels = Mapping[str, str]


class Page:
    """Samples in the order in which they are added, a family at a time."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(
        self, name: str, kind: str, help: str, samples: Iterable[tuple[Labels, float]]
    ) -> None:
        """One metric with its samples."""
        self._head(name, kind, help)
        self._lines += [_sample(name, labels, value) for labels, value in samples]

    def gauge(self, name: str, help: str, value: float) -> None:
        self.family(name, "gauge", help, [({}, value)])

    def counter(self, name: str, help: str, value: float) -> None:
        self.family(name, "counter", help, [({}, value)])

    def histogram(self, name: str, help: str, calls: Calls) -> None:
        """The latencies of each method."""
        self._head(name, "histogram", help)
        for method, latency in sorted(calls.latency.items()):
            labels, so_far = {"method": method}, 0
            for bound, count in zip((*BUCKETS, "+Inf"), latency.counts, strict=True):
                so_far += count
                bucket = {**labels, "le": str(bound)}
                self._lines.append(_sample(f"{name}_bucket", bucket, so_far))
            self._lines.append(_sample(f"{name}_sum", labels, latency.total))
            self._lines.append(_sample(f"{name}_count", labels, so_far))

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def _head(self, name: str, kind: str, help: str) -> None:
        self._lines += [f"# HELP {PREFIX}{name} {help}", f"# TYPE {PREFIX}{name} {kind}"]


def render(agent: Agent, calls: Calls, watch: StallWatch, timeline: Timeline | None) -> str:
    """All of it."""
    page = Page()
    page.family("info", "gauge", "What runs.", [(_info(), 1)])
    page.gauge("uptime_seconds", "Since the kernel started.", now_ms() / 1000)
    _add_calls(page, agent, calls)
    _add_containers(page, agent)
    _add_process(page, watch)
    if timeline is not None:
        steps = [({"step": step.name}, step.ms / 1000) for step in timeline.steps]
        page.family("boot_step_seconds", "gauge", "What start-up took.", steps)
    return page.text()


def _add_calls(page: Page, agent: Agent, calls: Calls) -> None:
    ended = [
        ({"method": method, "code": _code_name(code)}, count)
        for (method, code), count in sorted(calls.ended.items())
    ]
    page.family("calls_total", "counter", "Calls that ended, by method and code.", ended)
    page.histogram("call_seconds", "How long calls took.", calls)
    page.gauge("calls_running", "Calls in progress.", calls.running)
    page.gauge("connections", "Open ttrpc connections.", agent.server.connections)
    received, sent = agent.server.traffic()
    directions = [({"direction": "received"}, received), ({"direction": "sent"}, sent)]
    page.family("bytes_total", "counter", "Bytes of ttrpc connections.", directions)


def _add_containers(page: Page, agent: Agent) -> None:
    live = agent.containers.live().values()
    states = Counter(each.init.status.name if each else "CREATING" for each in live)
    names = ["CREATING", *(status.name for status in Status)]
    by_state = [({"state": name.lower()}, states[name]) for name in names]
    page.family("containers", "gauge", "Containers by state.", by_state)
    channels = agent.channels
    open_ones = {"input": len(channels.inputs), "output": len(channels.outputs)}
    streams = [({"kind": kind}, count) for kind, count in open_ones.items()]
    page.family("streams", "gauge", "Channels of the Streaming service.", streams)
    page.gauge("mounts", "Mounts that containers hold.", len(agent.storages.mount_points()))
    page.counter("reaped_total", "Processes that ended and were waited for.", agent.reaper.reaped)
    page.counter("events_total", "Events of containers.", agent.events.published)
    dropped = "Events that nobody took in time."
    page.counter("events_dropped_total", dropped, agent.events.dropped)


def _add_process(page: Page, watch: StallWatch) -> None:
    memory = [({"kind": name}, value) for name, value in sorted(procfs.memory().items())]
    page.family("memory_bytes", "gauge", "Of the agent's process, as in /proc/PID/status.", memory)
    cpu = os.times()
    page.counter("cpu_seconds_total", "Processor time of the agent.", cpu.user + cpu.system)
    page.gauge("open_fds", "Open file descriptors.", len(procfs.open_fds()))
    page.gauge("greenlets", "Greenlets, idle ones included.", len(all_greenlets()))
    page.gauge("threads", "Python threads.", threading.active_count())
    page.gauge("hub_lag_seconds", "How long the hub let the last question wait.", watch.lag)
    page.gauge("hub_lag_worst_seconds", "The longest such wait.", watch.worst)
    page.counter("hub_stalls_total", "Times that a greenlet kept the hub too long.", watch.stalls)
    page.gauge("log_lines_lost", "Lines that the console did not take, so far.", console.lost)
    page.gauge("time_seconds", "The guest's wall clock.", time.time())


def _info() -> dict[str, str]:
    return {"version": __version__, "kernel": os.uname().release}


def _code_name(code: int) -> str:
    try:
        return Code(code).name
    except ValueError:
        return str(code)


def _sample(name: str, labels: Labels, value: float) -> str:
    inner = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"{PREFIX}{name}{'{' + inner + '}' if inner else ''} {value}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
