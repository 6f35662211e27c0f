"""Lives of containers and execs by the hundred, and what an agent holds after them."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gevent.pool

from tests.support.agent import Agent

GROWTH_KIB = 4096
"""More than the allocator's noise; a greenlet kept by each of 7,000 lives would be thrice that."""


class Sample(NamedTuple):
    """What the agent holds; none of it may grow with the number of lives."""

    name: str
    seconds: int
    rss_kib: int
    descriptors: int
    threads: int
    children: int
    mounts: int
    temporary: int
    """Directories of console sockets."""


class Lives:
    """Lives through containers and execs, `at_once` of them at the same time."""

    def __init__(self, agent: Agent, at_once: int) -> None:
        self._agent = agent
        self._pool = gevent.pool.Pool(at_once)
        self._count = 0
        self._begun = time.monotonic()

    def containers(self, count: int) -> None:
        """Create, start, wait and delete; raises AssertionError for a wrong exit code."""
        for _ in self._pool.imap_unordered(self._live, self._numbers(count)):
            pass

    def execs(self, count: int) -> None:
        """The same for execs of one container."""
        id = self._agent.run("sleep", "1000000")
        for _ in self._pool.imap_unordered(lambda n: self._run(id, n), self._numbers(count)):
            pass
        self._agent.delete(id)
        shutil.rmtree(self._agent.state / id)

    def sample(self, name: str) -> Sample:
        """What the agent holds now, between lives."""
        proc = Path(f"/proc/{self._agent.pid}")
        self._agent.assert_clean()
        status = dict(re.findall(r"^(\w+):\s+(\d+)", (proc / "status").read_text(), re.MULTILINE))
        return Sample(
            name,
            round(time.monotonic() - self._begun),
            int(status["VmRSS"]),
            len(self._agent.open_fds()),
            int(status["Threads"]),
            len(self._agent.children()),
            len((proc / "mountinfo").read_text().splitlines()),
            len(list((proc / "root/run").glob("pty*"))),
        )

    def _live(self, number: int) -> None:
        status = number % 256
        id = self._agent.bundle("sh", "-c", f"exit {status}")
        self._agent.create(id)
        self._agent.start(id)
        seen = [self._agent.wait(id).exit_status, self._agent.delete(id).exit_status]
        assert seen == [status, status], f"container {number}: exit {seen}"
        shutil.rmtree(self._agent.state / id)

    def _run(self, id: str, number: int) -> None:
        status, exec_id = number % 256, f"x{number}"
        terminal = number % 10 == 0
        self._agent.exec(id, exec_id, "sh", "-c", f"exit {status}", terminal=terminal)
        seen = [
            self._agent.wait(id, exec_id).exit_status,
            self._agent.delete(id, exec_id).exit_status,
        ]
        assert seen == [status, status], f"exec {number}: exit {seen}"

    def _numbers(self, count: int) -> range:
        self._count += count
        return range(self._count - count, self._count)


def judge(samples: Sequence[Sample]) -> None:
    """Raises AssertionError when something has grown."""
    first, last = samples[0], samples[-1]
    for field in ("descriptors", "threads", "children", "mounts", "temporary"):
        assert getattr(last, field) <= getattr(first, field), f"{field} grew: {first} {last}"
    assert last.rss_kib - first.rss_kib <= GROWTH_KIB, f"memory grew: {first} {last}"
