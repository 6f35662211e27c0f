"""The pod's namespaces, made in mount namespaces of the tests' own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest

from kuasar_agent.errors import AgentError
from kuasar_agent.linux.mount import mounts
from kuasar_agent.reaper import Reaper
from kuasar_agent.sandbox.namespaces import PodNamespaces
from tests.support.isolation import isolated
from tests.support.processes import children_of
from tests.support.waiting import eventually


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "ns"


def with_namespaces(directory: Path, body: Callable[[PodNamespaces], None]) -> None:
    """Run `body`; of the processes that it started none may be left by its own doing."""

    def inside() -> None:
        reaper = Reaper()
        reaper.start()
        try:
            body(PodNamespaces(reaper, str(directory)))
        finally:
            for child in children_of(os.getpid()):
                os.kill(int(child.split()[0]), 9)

    isolated(inside)


def held(directory: Path) -> list[str]:
    """What is mounted, as `ipc:[4026532179]`."""
    targets = [entry for entry in mounts() if entry.target.startswith(f"{directory}/")]
    return [entry.root for entry in sorted(targets, key=lambda entry: entry.target)]


def identity(process: object, kind: str) -> str:
    return str(Path(f"/proc/{process}/ns/{kind}").readlink())


def inside(directory: Path, script: str, *kinds: str) -> str:
    command = ["nsenter", *(f"--{kind}={directory}/{kind}" for kind in kinds), "sh", "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_they_are_made_with_the_pods_name_and_parameters(directory: Path) -> None:
    values = {"kernel.shmmni": "4000", "fs.mqueue.msg_max": "33", "kernel/domainname": "dom"}
    files = "/proc/sys/kernel/shmmni /proc/sys/fs/mqueue/msg_max /proc/sys/kernel/domainname"

    def body(namespaces: PodNamespaces) -> None:
        before = {kind: identity("self", kind) for kind in ("ipc", "uts", "pid")}
        name = os.uname().nodename
        outside = [Path(file).read_text() for file in files.split()]
        namespaces.ensure(share_pid=False, hostname="pod-1", values=values)
        assert directory.stat().st_mode & 0o777 == 0o711
        assert [root.partition(":")[0] for root in held(directory)] == ["ipc", "uts"]
        assert not {*held(directory)} & {*before.values()}
        seen = inside(directory, f"cat {files}; uname -n", "ipc", "uts")
        assert seen.split() == ["4000", "33", "dom", "pod-1"]
        # This process stayed where it was.
        assert {kind: identity("self", kind) for kind in before} == before
        assert [Path(file).read_text() for file in files.split()] == outside
        assert os.uname().nodename == name

    with_namespaces(directory, body)


def test_a_second_call_keeps_them_and_adds_what_is_missing(directory: Path) -> None:
    def body(namespaces: PodNamespaces) -> None:
        namespaces.ensure(share_pid=False, hostname="first", values={})
        first = held(directory)
        for _ in range(2):
            namespaces.ensure(share_pid=True, hostname="second", values={"kernel.sem": "1 2 3 4"})
            assert [held(directory)[0], held(directory)[2]] == first
            assert len(held(directory)) == 3
            assert len(children_of(os.getpid())) == 1
        seen = inside(directory, "uname -n; cat /proc/sys/kernel/sem", "ipc", "uts")
        assert seen.split() == ["first", "1", "2", "3", "4"]

    with_namespaces(directory, body)


def test_orphans_of_the_pid_namespace_are_reaped(directory: Path) -> None:
    def body(namespaces: PodNamespaces) -> None:
        namespaces.ensure(share_pid=True, hostname="", values={})
        (pause,) = [int(child.split()[0]) for child in children_of(os.getpid())]
        assert identity(pause, "pid") == held(directory)[1]
        # Some end as orphans, some have ended before they become orphans.
        inside(
            directory, "for i in 1 2 3 4; do (sleep 0.1 &); done; (true & exec sleep 0.2) &", "pid"
        )
        assert eventually(lambda: children_of(pause), lambda left: not left) == []

    with_namespaces(directory, body)


def test_a_pid_namespace_whose_first_process_died_is_replaced(directory: Path) -> None:
    def body(namespaces: PodNamespaces) -> None:
        namespaces.ensure(share_pid=True, hostname="", values={})
        before = held(directory)
        (pause,) = [int(child.split()[0]) for child in children_of(os.getpid())]
        os.kill(pause, 9)
        eventually(lambda: children_of(os.getpid()), lambda left: not left)
        gevent.sleep(0)
        namespaces.ensure(share_pid=True, hostname="", values={})
        after = held(directory)
        assert (after[0], after[2]) == (before[0], before[2])
        assert inside(directory, "echo works", "pid") == "works\n"

    with_namespaces(directory, body)


def test_a_failure_reaches_the_caller_and_leaves_nothing(directory: Path) -> None:
    def body(namespaces: PodNamespaces) -> None:
        texts = []
        for hostname, values in (("h" * 65, {}), ("pod", {"kernel.shmmni": "many"})):
            try:
                namespaces.ensure(share_pid=True, hostname=hostname, values=values)
            except AgentError as error:
                texts.append(error.message)
            assert held(directory) == []
            assert list(directory.iterdir()) == []
            assert eventually(lambda: children_of(os.getpid()), lambda left: not left) == []
        assert texts == [
            f"hostname {'h' * 65}: Invalid argument",
            "failed to set sysctl kernel.shmmni to many error: Invalid argument",
        ]
        namespaces.ensure(share_pid=True, hostname="pod", values={})
        assert len(held(directory)) == 3

    with_namespaces(directory, body)


def test_a_directory_that_cannot_be_is_named(directory: Path) -> None:
    directory.write_text("a file")

    def body(namespaces: PodNamespaces) -> None:
        with pytest.raises(AgentError) as raised:
            namespaces.ensure(share_pid=False, hostname="", values={})
        assert str(directory) in raised.value.message

    with_namespaces(directory, body)
