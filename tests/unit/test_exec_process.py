"""What an exec tells, and in which order, with stand-ins for the runtime and the streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gevent.event

from kuasar_agent.containers.exec_process import ExecProcess
from kuasar_agent.containers.process import ContainerContext
from kuasar_agent.containers.shared_lock import SharedLock
from kuasar_agent.reaper import Exit
from kuasar_agent.stdio.urls import StdioUrls


def make(urls: StdioUrls, told: list[str], launch: Callable[..., Any] | None = None) -> ExecProcess:
    events: Any = SimpleNamespace(
        exec_started=lambda exec: told.append("start"), exited=lambda exec: told.append("exit")
    )
    runtime: Any = SimpleNamespace(exec=launch)
    stdio: Any = SimpleNamespace(
        child_fds=(0, 1, 2), console_socket=None, start=lambda: None, resize=lambda *_: None
    )
    bundle: Any = SimpleNamespace(path="/b")
    cgroup: Any = SimpleNamespace(report_kills=lambda: told.append("kills"))
    init: Any = SimpleNamespace(require=lambda *_: None)
    context = ContainerContext("c", bundle, runtime, lambda _: stdio, events, cgroup, SharedLock())
    return ExecProcess("e", urls, {"args": ["x"]}, context, init)


def test_the_kills_of_the_oom_killer_are_told_before_the_exit() -> None:
    # The watch of a real cgroup mostly wins this race, so both sides are stand-ins.
    told: list[str] = []
    exec = make(StdioUrls(), told)
    child: Any = SimpleNamespace(wait=lambda: Exit(1, 137, 0))
    exec._follow(child)
    assert told == ["kills", "exit"]


def test_a_size_that_was_set_before_the_start_is_the_runtimes_to_set() -> None:
    # Set by us alone, once the terminal is here, it may come after the process has asked.
    specs: list[dict[str, Any]] = []

    def launch(id: str, spec: bytes, *_: object, **__: object) -> Any:
        specs.append(json.loads(spec))
        return SimpleNamespace(pid=1, wait=gevent.event.Event().wait)

    exec = make(StdioUrls(terminal=True), [], launch)
    exec.resize(100, 30)
    exec.start()
    assert specs == [{"args": ["x"], "terminal": True, "consoleSize": {"height": 30, "width": 100}}]
