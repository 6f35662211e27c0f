"""What may go wrong around a container: nothing is left of it, and the agent goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import gevent
import gevent.pool
import pytest

from kuasar_agent.api.task_types_pb2 import RUNNING, STOPPED
from kuasar_agent.ttrpc import Code, StatusError, Unknown
from tests.support.agent import Agent, running_agent
from tests.support.refusal import refusal
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

CONTAINERS = {"crun": 200, "runc": 50}
KILLED = 128 + signal.SIGKILL


@pytest.fixture
def agent(shared_agent: Agent) -> Agent:
    return shared_agent


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Agent]:
    """An agent that gives its runtime one second."""
    with running_agent(tmp_path, "crun", "--runtime-timeout", "1") as agent:
        yield agent


def stand_in(directory: Path, script: str) -> str:
    """A runtime that runs `script`, with the command in $command and the real one as "$@"."""
    path = directory / "runtime.sh"
    path.write_text(f'#!/bin/sh\ncommand="$7"\n{script}\n')
    path.chmod(0o755)
    return str(path)


def test_a_runtime_killed_in_mid_create_leaves_nothing(agent: Agent, tmp_path: Path) -> None:
    """After every few milliseconds of a create: somewhere in between everything is half done."""
    created = 0
    for ms in range(1, 60, 3):
        script = f'[ $command = create ] && exec timeout -s KILL 0.{ms:03} {agent.runtime} "$@"\n'
        binary = stand_in(tmp_path, f'{script}exec {agent.runtime} "$@"')
        id = agent.bundle("sleep", "1000")
        try:
            agent.create(id, options=agent.options(binary_name=binary))
        except Unknown:
            assert agent.containers() == []
            assert agent.cgroups() == []
            assert refusal(agent.state_of, id).code == Code.NOT_FOUND
        else:
            created += 1
            agent.delete(id)
    assert created < 20


@pytest.mark.parametrize("hanging", ["create", "*"])
def test_a_create_that_hangs_is_ended_and_undone(
    impatient: Agent, tmp_path: Path, hanging: str
) -> None:
    """Also when the runtime then hangs in every command that could clean up."""
    binary = stand_in(
        tmp_path, '[ $command = create ] && crun "$@"\n'
        f'case $command in {hanging}) sleep 1000;; esac\nexec crun "$@"',
    )  # fmt: skip
    id = impatient.bundle("sleep", "1000")
    options = impatient.options(binary_name=binary)
    error = refusal(impatient.create, id, stdout=f"vsock://3:{impatient.port()}", options=options)
    assert error.code == Code.DEADLINE_EXCEEDED
    assert impatient.containers() == []
    assert impatient.cgroups() == []
    impatient.create(id)
    impatient.delete(id)


def test_a_runtime_that_hangs_holds_up_nobody_else(impatient: Agent, tmp_path: Path) -> None:
    binary = stand_in(tmp_path, '[ $command = start ] && sleep 1000\nexec crun "$@"')
    stuck = impatient.bundle("true")
    impatient.create(stuck, options=impatient.options(binary_name=binary))
    start = gevent.spawn(refusal, impatient.start, stuck)
    gevent.sleep(0)
    other = impatient.run("true")
    assert impatient.wait(other).exit_status == 0
    impatient.delete(other)
    assert start.get(timeout=TIMEOUT).code == Code.DEADLINE_EXCEEDED
    impatient.delete(stuck)


def test_an_exec_that_hangs_is_ended_and_undone(impatient: Agent, tmp_path: Path) -> None:
    script = '[ $command = exec ] && crun "$@" && sleep 1000\nexec crun "$@"'
    id = impatient.bundle("sleep", "1000")
    impatient.create(
        id, options=impatient.options(binary_name=stand_in(tmp_path, script)),
    )  # fmt: skip
    impatient.start(id)
    impatient.add_exec(id, "x", "sleep", "1000", stdout=f"vsock://3:{impatient.port()}")
    assert refusal(impatient.start, id, "x").code == Code.DEADLINE_EXCEEDED
    assert impatient.wait(id, "x").exit_status == 255
    assert eventually(lambda: len(impatient.pids(id)), lambda count: count == 1) == 1
    impatient.delete(id)


def test_a_pause_that_fails_half_way_is_undone(agent: Agent, tmp_path: Path) -> None:
    script = f'[ $command = pause ] && {agent.runtime} "$@" && exit 1\nexec {agent.runtime} "$@"'
    id = agent.bundle("sleep", "1000")
    agent.create(id, options=agent.options(binary_name=stand_in(tmp_path, script)))
    agent.start(id)
    assert refusal(agent.pause, id).code == Code.UNKNOWN
    agent.exec(id, "x", "true")
    assert agent.wait(id, "x").exit_status == 0
    agent.delete(id)


def test_an_exec_ends_while_the_rest_of_its_container_is_killed(
    agent: Agent, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    binary = stand_in(
        tmp_path,
        f'[ "$command $8" = "kill --all" ] && until [ -e {go} ]; do sleep 0.05; done\n'
        f'exec {agent.runtime} "$@"',
    )
    id = agent.bundle("sleep", "1000", own_pids=False)
    agent.create(id, options=agent.options(binary_name=binary))
    agent.start(id)
    agent.exec(id, "x", "sleep", "1000")
    waiter = gevent.spawn(agent.wait, id)
    agent.kill(id, signal.SIGKILL)
    agent.kill(id, signal.SIGTERM, "x")
    assert agent.wait(id, "x").exit_status == 128 + signal.SIGTERM
    assert not waiter.ready()
    go.touch()
    assert waiter.get(timeout=TIMEOUT).exit_status == KILLED
    agent.delete(id)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bundle_on_a_full_disk_fails_the_create(agent: Agent, terminal: bool) -> None:
    id = agent.bundle("true")
    path = agent.state / id
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    in_agent = ["nsenter", "-t", str(agent.pid), "-m", "-r"]
    # A page for each file, and none for another.
    size = f"size={4096 * len(files)}"
    subprocess.run([*in_agent, "mount", "-t", "tmpfs", "-o", size, "tmpfs", path], check=True)
    try:
        for name, content in files.items():
            Path(f"/proc/{agent.pid}/root{path}/{name}").write_bytes(content)
        error = refusal(agent.create, id, terminal=terminal)
        assert error.code == Code.UNKNOWN
        if terminal:
            assert error.message.endswith("config.json: No space left on device")
    finally:
        subprocess.run([*in_agent, "umount", path], check=True)
    agent.create(id)
    agent.delete(id)


def test_a_container_outlives_its_bundle(agent: Agent) -> None:
    id = agent.bundle("sleep", "1000")
    agent.create(id)
    shutil.rmtree(agent.state / id)
    agent.start(id)
    agent.add_exec(id, "x", "true")
    assert refusal(agent.start, id, "x").code == Code.UNKNOWN
    agent.kill(id, signal.SIGKILL)
    assert agent.wait(id).exit_status == KILLED
    agent.delete(id)


def test_a_storm_of_signals_ends_a_container_once(agent: Agent) -> None:
    id = agent.run("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    agent.exec(id, "x", "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")

    def send(number: int) -> int:
        kind = signal.SIGKILL if number > 60 else signal.SIGTERM
        try:
            agent.kill(id, kind, "x" if number % 2 else "", everyone=number % 3 == 0)
        except StatusError as error:
            return error.code
        return Code.OK

    storm = [gevent.spawn(send, number) for number in range(80)]
    codes = [greenlet.get(timeout=TIMEOUT) for greenlet in storm]
    assert set(codes) <= {Code.OK, Code.NOT_FOUND}
    assert agent.wait(id).exit_status == KILLED
    assert agent.wait(id, "x").exit_status in (KILLED, 128 + signal.SIGTERM)
    agent.delete(id)


def test_many_containers_run_at_once(agent: Agent) -> None:
    count = CONTAINERS[agent.runtime]
    pool = gevent.pool.Pool(count)
    ids = [agent.bundle("sleep", "1000") for _ in range(count)]
    pids = pool.map(agent.create, ids)
    assert len(set(pids)) == count
    assert pool.map(agent.start, ids) == pids
    assert {state.status for state in pool.map(agent.state_of, ids)} == {RUNNING}
    waiters = [gevent.spawn(agent.wait, id) for id in ids]
    pool.map(lambda id: agent.kill(id, signal.SIGKILL), ids)
    assert {waiter.get(timeout=TIMEOUT).exit_status for waiter in waiters} == {KILLED}
    assert {state.status for state in pool.map(agent.state_of, ids)} == {STOPPED}
    assert {reply.exit_status for reply in pool.map(agent.delete, ids)} == {KILLED}
