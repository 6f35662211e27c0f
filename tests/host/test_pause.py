"""Pause, Resume, Pids and Checkpoint through the Task service, with both OCI runtimes."""

from __future__ import annotations

import operator
import signal
from pathlib import Path

import gevent
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api import runc_options_pb2, task_pb2
from kuasar_agent.api.task_types_pb2 import PAUSED, RUNNING, STOPPED
from kuasar_agent.ttrpc import Code
from tests.support.agent import Agent, running_agent
from tests.support.refusal import refusal
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

KILLED = 128 + signal.SIGKILL


@pytest.fixture
def agent(shared_agent: Agent) -> Agent:
    return shared_agent


def test_a_paused_container_stands_still_until_it_is_resumed(agent: Agent) -> None:
    port = agent.port()
    id = agent.run("sh", "-c", "echo go; read line; exit 4", stdin=f"vsock://3:{agent.port()}",
                   stdout=f"vsock://3:{port}")  # fmt: skip
    with agent.dial(port) as peer:
        assert peer.recv(100) == b"go\n"
        agent.pause(id)
        assert agent.state_of(id).status == PAUSED
        agent.close_io(id)
        waiter = gevent.spawn(agent.wait, id)
        # What a running program does at the end of its input, a frozen one does not.
        waiter.join(0.3)
        assert not waiter.ready()
        agent.resume(id)
        assert waiter.get(timeout=TIMEOUT).exit_status == 4
    agent.delete(id)


def test_a_container_is_paused_and_resumed_any_number_of_times(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    for _ in range(3):
        assert refusal(agent.resume, id).code == Code.FAILED_PRECONDITION
        agent.pause(id)
        assert refusal(agent.pause, id).code == Code.FAILED_PRECONDITION
        agent.resume(id)
        assert agent.state_of(id).status == RUNNING
    agent.delete(id)


def test_only_a_running_container_can_be_paused(agent: Agent) -> None:
    assert refusal(agent.pause, "unknown").code == Code.NOT_FOUND
    assert refusal(agent.resume, "unknown").code == Code.NOT_FOUND
    id = agent.bundle("true")
    agent.create(id)
    assert refusal(agent.pause, id).code == Code.FAILED_PRECONDITION
    agent.start(id)
    agent.wait(id)
    assert refusal(agent.pause, id).code == Code.FAILED_PRECONDITION
    assert refusal(agent.resume, id).code == Code.FAILED_PRECONDITION
    agent.delete(id)


def test_a_paused_container_takes_no_execs(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    agent.add_exec(id, "x", "sh", "-c", "exit 5")
    agent.pause(id)
    assert refusal(agent.add_exec, id, "y", "true").code == Code.FAILED_PRECONDITION
    assert refusal(agent.start, id, "x").code == Code.FAILED_PRECONDITION
    agent.resume(id)
    agent.start(id, "x")
    assert agent.wait(id, "x").exit_status == 5
    agent.delete(id)


@pytest.mark.parametrize("everyone", [False, True])
def test_kill_ends_a_paused_container(agent: Agent, everyone: bool) -> None:
    id = agent.run("sh", "-c", "sleep 1000 & wait")
    agent.exec(id, "x", "sleep", "1000")
    agent.pause(id)
    agent.kill(id, signal.SIGKILL, everyone=everyone)
    assert agent.wait(id).exit_status == KILLED
    assert agent.wait(id, "x").exit_status == KILLED
    assert agent.state_of(id).status == STOPPED
    agent.delete(id)


@pytest.mark.parametrize("own_pids", [True, False])
def test_delete_ends_a_paused_container(agent: Agent, own_pids: bool) -> None:
    id = agent.run("sh", "-c", "sleep 1000 & wait", own_pids=own_pids)
    agent.exec(id, "x", "sleep", "1000")
    pids = eventually(lambda: agent.pids(id), lambda pids: len(pids) == 3)
    agent.pause(id)
    assert agent.delete(id).exit_status == KILLED
    assert len(pids) == 3
    assert not eventually(lambda: any(Path(f"/proc/{pid}").exists() for pid in pids), operator.not_)


def test_pids_are_those_of_the_cgroup_with_the_ids_of_execs(agent: Agent) -> None:
    id = agent.bundle("sh", "-c", "sleep 1000 & wait")
    pid = agent.create(id)
    assert agent.pids(id) == [pid]
    agent.start(id)
    exec_pid = agent.exec(id, "x", "sleep", "1000")
    eventually(lambda: agent.pids(id), lambda pids: len(pids) == 3)
    reply = agent.tasks.pids(task_pb2.PidsRequest(id=id), timeout=TIMEOUT)
    infos = {process.pid: process.info for process in reply.processes}
    assert len(infos) == 3
    assert infos[exec_pid].type_url == "containerd.runc.v1.ProcessDetails"
    details = runc_options_pb2.ProcessDetails.FromString(infos[exec_pid].value)
    assert details.exec_id == "x"
    assert infos[pid] == AnyMessage()
    agent.kill(id, signal.SIGKILL)
    agent.wait(id)
    # contract: containerd deletes a task without pids when it starts, and its exit code with it.
    assert eventually(lambda: agent.pids(id), lambda pids: pids == [pid]) == [pid]
    agent.delete(id)
    assert refusal(agent.pids, id).code == Code.NOT_FOUND


def checkpoint(agent: Agent, id: str, path: str, **options: object) -> None:
    message = runc_options_pb2.CheckpointOptions(**options)  # type: ignore[arg-type]
    packed = AnyMessage(
        type_url="containerd.runc.v1.CheckpointOptions", value=message.SerializeToString()
    )
    request = task_pb2.CheckpointTaskRequest(id=id, path=path, options=packed)
    agent.tasks.checkpoint(request, timeout=TIMEOUT)


def test_checkpoint_without_criu_is_unimplemented(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    error = refusal(checkpoint, agent, id, "/image")
    assert (error.code, "criu" in error.message) == (Code.UNIMPLEMENTED, True)
    assert refusal(checkpoint, agent, id, "image").code == Code.INVALID_ARGUMENT
    assert agent.state_of(id).status == RUNNING
    agent.delete(id)


def test_a_restore_from_a_checkpoint_is_unimplemented(agent: Agent) -> None:
    id = agent.bundle("true")
    assert refusal(agent.create, id, checkpoint="/image").code == Code.UNIMPLEMENTED


def test_checkpoint_passes_every_option_to_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins: crun of Debian is built without criu, whose kernel features a guest lacks."""
    seen = tmp_path / "seen"
    for name, body in {
        "criu": "exit 0",
        "fake": f'case "$*" in *" checkpoint "*) echo "$@" > {seen};; *) exec crun "$@";; esac',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    with running_agent(tmp_path, "crun") as agent:
        id = agent.bundle("sleep", "1000")
        agent.create(id, options=agent.options(binary_name="fake"))
        agent.start(id)
        checkpoint(agent, id, "/image", exit=True, open_tcp=True, empty_namespaces=["network"],
                   file_locks=True, cgroups_mode="soft", parent_path="/p")  # fmt: skip
        assert (
            seen.read_text().split(" checkpoint ")[1].split()
            == (
                f"--image-path /image --work-path {agent.state}/{id}/criu-work --parent-path /p "
                f"--tcp-established --file-locks --manage-cgroups-mode soft --empty-ns network {id}"
            ).split()
        )
        agent.delete(id)
