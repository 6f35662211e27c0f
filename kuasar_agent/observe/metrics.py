"""The agent's state in Prometheus' text format.

https://prometheus.io/docs/instrumenting/exposition_formats/. Only calls are counted as they run;
every other value is read when a page is rendered.
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
    from kuasar_agent.boot.timeline import Timeline
    from kuasar_agent.observe.parts import Parts

PREFIX = "kuasar_agent_"

Labels = Mapping[str, str]


class Page:
    """Lines of samples in the order in which they are added, a family at a time."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(
        self, name: str, kind: str, help: str, samples: Iterable[tuple[Labels, float]]
    ) -> None:
        """Add one metric with its samples."""
        self._head(name, kind, help)
        self._lines += [_sample(name, labels, value) for labels, value in samples]

    def gauge(self, name: str, help: str, value: float) -> None:
        self.family(name, "gauge", help, [({}, value)])

    def counter(self, name: str, help: str, value: float) -> None:
        self.family(name, "counter", help, [({}, value)])

    def histogram(self, name: str, help: str, calls: Calls) -> None:
        """Add the latencies of each method, in the buckets of `calls.BUCKETS` (seconds)."""
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


def render(parts: Parts, calls: Calls, watch: StallWatch, timeline: Timeline | None) -> str:
    """Return a page with every metric of the agent."""
    page = Page()
    page.family("info", "gauge", "Version of the agent and release of the kernel.", [(_info(), 1)])
    page.gauge("uptime_seconds", "Time since the kernel started.", now_ms() / 1000)
    _add_calls(page, parts, calls)
    _add_containers(page, parts)
    _add_process(page, watch)
    if timeline is not None:
        steps = [({"step": step.name}, step.ms / 1000) for step in timeline.steps]
        page.family("boot_step_seconds", "gauge", "Duration of each step of start-up.", steps)
    return page.text()


def _add_calls(page: Page, parts: Parts, calls: Calls) -> None:
    ended = [
        ({"method": method, "code": _code_name(code)}, count)
        for (method, code), count in sorted(calls.ended.items())
    ]
    page.family("calls_total", "counter", "Calls that ended, by method and code.", ended)
    page.histogram("call_seconds", "Duration of calls.", calls)
    page.gauge("calls_running", "Calls in progress.", calls.running)
    page.gauge("connections", "Open ttrpc connections.", parts.server.connections)
    received, sent = parts.server.traffic()
    directions = [({"direction": "received"}, received), ({"direction": "sent"}, sent)]
    page.family("bytes_total", "counter", "Bytes on ttrpc connections.", directions)


def _add_containers(page: Page, parts: Parts) -> None:
    live = parts.containers.live().values()
    states = Counter(each.init.status.name if each else "CREATING" for each in live)
    names = ["CREATING", *(status.name for status in Status)]
    by_state = [({"state": name.lower()}, states[name]) for name in names]
    page.family("containers", "gauge", "Containers by state.", by_state)
    channels = parts.channels
    open_ones = {"input": len(channels.inputs), "output": len(channels.outputs)}
    streams = [({"kind": kind}, count) for kind, count in open_ones.items()]
    page.family("streams", "gauge", "Channels of the Streaming service.", streams)
    page.gauge("mounts", "Mounts held by containers.", len(parts.storages.mount_points()))
    page.counter("reaped_total", "Processes reaped, orphans included.", parts.reaper.reaped)
    page.counter("events_total", "Task events published.", parts.events.published)
    dropped = "Task events dropped because the queue was full."
    page.counter("events_dropped_total", dropped, parts.events.dropped)


def _add_process(page: Page, watch: StallWatch) -> None:
    memory = [({"kind": name}, value) for name, value in sorted(procfs.memory().items())]
    page.family("memory_bytes", "gauge", "Memory of the agent, as in /proc/PID/status.", memory)
    cpu = os.times()
    page.counter("cpu_seconds_total", "CPU time of the agent.", cpu.user + cpu.system)
    page.gauge("open_fds", "Open file descriptors.", len(procfs.open_fds()))
    page.gauge("greenlets", "Greenlets, idle ones included.", len(all_greenlets()))
    page.gauge("threads", "Python threads.", threading.active_count())
    page.gauge("hub_lag_seconds", "Delay of the hub's last answer to the stall watch.", watch.lag)
    page.gauge("hub_lag_worst_seconds", "Longest delay so far.", watch.worst)
    page.counter("hub_stalls_total", "Times that a greenlet blocked the hub.", watch.stalls)
    page.gauge("log_lines_lost", "Log lines in a row that the console refused.", console.lost)
    page.gauge("time_seconds", "Wall clock of the guest.", time.time())


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
