"""What host tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kuasar_agent.linux import syscalls
from kuasar_agent.linux.mount import mount
from tests.host.agent import Agent, running_agent
from tests.host.isolation import isolated


@pytest.fixture
def agent(tmp_path: Path, runtime: str) -> Iterator[Agent]:
    """An agent that uses `runtime`; nothing of its containers may be left at the end."""
    with running_agent(tmp_path, runtime) as agent:
        yield agent


@pytest.fixture
def runtime() -> str:
    return "crun"


@pytest.fixture(scope="module", params=["crun", "runc"])
def one_agent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agent]:
    directory = tmp_path_factory.mktemp("agent")
    with running_agent(directory, request.param, "--all-events") as agent:
        yield agent


@pytest.fixture
def shared_agent(one_agent: Agent) -> Iterator[Agent]:
    """One agent per runtime for all tests of a module; it has to be clean after each of them."""
    yield one_agent
    one_agent.assert_clean()


@pytest.fixture
def enter_own_cgroup(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Called in a child process: moves it to a v2 cgroup that it sees as the root from then on."""
    top = tmp_path / "cgroup2"
    top.mkdir()
    mine = top / f"test-{os.getpid()}"

    def enter() -> None:
        mount("cgroup2", str(top), "cgroup2")
        mine.mkdir(exist_ok=True)
        (mine / "cgroup.procs").write_text("0")
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)

    def remove() -> None:
        mount("cgroup2", str(top), "cgroup2")
        for directory in (mine / "init", mine):
            if directory.exists():
                directory.rmdir()

    yield enter
    isolated(remove)
