"""How long Stats takes with one container and with a hundred, and what a poll of all costs.

The kubelet asks for every container every 10 s.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from kuasar_agent.api import task_pb2
from tests.bench.start import percentile
from tests.bench.table import show
from tests.support.agent import Agent, running_agent

CONTAINERS = 100
CALLS = 2000
_PERIOD = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        running_agent(Path(directory), "crun") as agent,
    ):
        ids: list[str] = []
        rows: list[list[str | float]] = []
        for count in (1, CONTAINERS):
            while len(ids) < count:
                ids.append(agent.run("sleep", "100000"))
            rows.append([f"{count} container{'s' * (count > 1)}", *_measure(agent, ids)])
        for id in ids:
            agent.delete(id)
    title = f"Stats on the host, {CALLS} calls in turn (load {os.getloadavg()[0]:.1f})"
    show(title, ("", "p50 ms", "p99 ms", f"CPU for all every {_PERIOD:.0f} s, %"), rows)


def _measure(agent: Agent, ids: list[str]) -> list[float]:
    times = []
    before = _cpu(agent)
    for number in range(CALLS):
        request = task_pb2.StatsRequest(id=ids[number % len(ids)])
        begun = time.perf_counter()
        agent.tasks.stats(request, timeout=60)
        times.append((time.perf_counter() - begun) * 1000)
    cost = (_cpu(agent) - before) / CALLS * len(ids) / _PERIOD * 100
    return [percentile(times, 0.5), percentile(times, 0.99), cost]


def _cpu(agent: Agent) -> float:
    """Seconds that the agent has used."""
    fields = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
