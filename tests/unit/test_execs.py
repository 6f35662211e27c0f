"""What an exec tells, and in which order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kuasar_agent.containers.bundle import StdioUrls
from kuasar_agent.containers.execs import Exec
from kuasar_agent.reaper import Exit


def test_the_kills_of_the_oom_killer_are_told_before_the_exit() -> None:
    # The watch of a real cgroup mostly wins this race, so both sides are stand-ins.
    told: list[str] = []
    announce: Any = SimpleNamespace(exited=lambda exec: told.append("exit"))
    nothing: Any = None
    exec = Exec(
        "e",
        StdioUrls(),
        {},
        container_id="c",
        bundle="/b",
        runtime=nothing,
        open_stdio=nothing,
        announce=announce,
        report_kills=lambda: told.append("kills"),
    )
    child: Any = SimpleNamespace(wait=lambda: Exit(1, 137, 0))
    exec._follow(child)
    assert told == ["kills", "exit"]
