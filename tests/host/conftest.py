"""What host tests share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import gevent
import pytest

from kuasar_agent.linux import syscalls
from kuasar_agent.linux.mount import mount
from tests.support.agent import Agent, running_agent
from tests.support.isolation import isolated
from tests.support.storages import Pod, Within, make_image


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
    with running_agent(directory, request.param, "--events", "all") as agent:
        yield agent


@pytest.fixture
def shared_agent(one_agent: Agent) -> Iterator[Agent]:
    """One agent per runtime for all tests of a module; it has to be clean after each of them."""
    yield one_agent
    one_agent.assert_clean()


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Agent]]:
    """Starts an agent for a runtime, or returns the one that the module has already."""
    with ExitStack() as running:

        @cache
        def agent_with(runtime: str) -> Agent:
            directory = tmp_path_factory.mktemp(runtime)
            return running.enter_context(running_agent(directory, runtime))

        yield agent_with


@pytest.fixture
def module_agent(agents: Callable[[str], Agent], runtime: str) -> Iterator[Agent]:
    """The module's agent for `runtime`; nothing may be left of its containers after each test."""
    agent = agents(runtime)
    yield agent
    agent.assert_clean()


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


@pytest.fixture
def within(tmp_path: Path) -> Within:
    """Runs a body with a pod in a mount namespace of its own; nothing may be left at the end."""

    def run(body: Callable[[Pod], None]) -> None:
        def child() -> None:
            gevent.reinit()
            pod = Pod(tmp_path)
            body(pod)
            pod.assert_clean()

        isolated(child)

    return run


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Makes block devices of files."""
    nodes = []

    def attach(image: Path) -> str:
        command = ["losetup", "--find", "--show", str(image)]
        node = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        nodes.append(node)
        return node

    yield attach
    for node in nodes:
        subprocess.run(["losetup", "--detach", node], check=True)


@pytest.fixture
def disk(tmp_path: Path, loop: Callable[[Path], str]) -> str:
    """A block device with ext4 on it."""
    return loop(make_image(tmp_path / "ext4.img"))
