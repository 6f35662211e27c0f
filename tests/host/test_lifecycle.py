"""Containers on real runtimes, through the Task service."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from kuasar_agent.api import task_pb2
from kuasar_agent.ttrpc import (
    AlreadyExists,
    Code,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    StatusError,
    Unimplemented,
)
from tests.host.agent import TASK, HostAgent, running_agent

CREATED, RUNNING, STOPPED = 1, 2, 3


@pytest.fixture(params=["crun", "runc"])
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HostAgent]:
    with running_agent(tmp_path, request.param) as agent:
        yield agent


def test_both_outputs_and_the_exit_code_arrive(agent: HostAgent) -> None:
    result = agent.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert result == (7, b"out\n", b"err\n")


def test_input_reaches_the_process_and_ends(agent: HostAgent) -> None:
    data = bytes(range(256)) * 4096
    assert agent.run("cat", stdin=data) == (0, data, b"")


def test_large_output_is_whole(agent: HostAgent) -> None:
    result = agent.run("sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x")
    assert (result.status, len(result.stdout), set(result.stdout)) == (0, 20000000, {ord("x")})


def test_states_follow_each_other_and_deletion_forgets(agent: HostAgent) -> None:
    id = agent.bundle("sleep", "1000")
    pid = agent.create(id)
    assert agent.status(id) == CREATED
    agent.start(id)
    assert agent.status(id) == RUNNING
    connected = agent.task.connect(task_pb2.ConnectRequest(id=id))
    assert (connected.shim_pid, connected.task_pid) == (agent.process.pid, pid)
    agent.kill(id, signal.SIGKILL)
    assert agent.wait(id) == 128 + signal.SIGKILL
    assert agent.status(id) == STOPPED
    deleted = agent.delete(id)
    assert (deleted.pid, deleted.exit_status) == (pid, 128 + signal.SIGKILL)
    assert deleted.exited_at.seconds > 0
    assert not agent.known_to_runtime(id)
    with pytest.raises(NotFound):
        agent.status(id)


def test_a_created_and_a_running_container_can_be_deleted(agent: HostAgent) -> None:
    created, running = agent.bundle("true"), agent.bundle("sleep", "1000")
    agent.create(created)
    agent.create(running)
    agent.start(running)
    assert agent.delete(created).exit_status == 128 + signal.SIGKILL
    assert agent.delete(running).exit_status == 128 + signal.SIGKILL


def test_many_waiters_get_the_exit_also_when_deletion_is_first(agent: HostAgent) -> None:
    id = agent.bundle("sleep", "1000")
    agent.create(id)
    waiters = [gevent.spawn(agent.wait, id) for _ in range(20)]
    gevent.sleep(0)
    agent.start(id)
    agent.delete(id)
    assert [waiter.get(timeout=30) for waiter in waiters] == [137] * 20


def test_an_id_is_taken_once_and_a_container_started_once(agent: HostAgent) -> None:
    id = agent.bundle("sleep", "1000")
    agent.create(id)
    with pytest.raises(AlreadyExists):
        agent.create(id)
    agent.start(id)
    with pytest.raises(FailedPrecondition):
        agent.start(id)
    agent.kill(id, signal.SIGKILL)
    agent.wait(id)
    with pytest.raises(NotFound, match="process already finished"):
        agent.kill(id, signal.SIGTERM)
    with pytest.raises(InvalidArgument):
        agent.kill(id, 65)
    agent.delete(id)


def test_the_service_has_two_names_and_shutdown_stops_nothing(agent: HostAgent) -> None:
    v3 = agent.client.stub(TASK, name="containerd.task.v3.Task")
    v3.shutdown(task_pb2.ShutdownRequest(id="any", now=True))
    agent.check()
    with pytest.raises(Unimplemented, match="is not supported"):
        v3.pause(task_pb2.PauseRequest(id="any"))


def test_containers_that_exit_at_once_are_never_lost(tmp_path: Path) -> None:
    with running_agent(tmp_path, "crun") as agent:
        for number in range(200):
            id = agent.bundle("sh", "-c", f"exit {number}")
            agent.create(id)
            agent.start(id)
            assert agent.wait(id) == number
            agent.delete(id)


@pytest.mark.parametrize("id", ["..", ".", "a/b", "../a", "-a", "", "x" * 200, "a\0b", "a b"])
def test_an_id_that_is_no_path_component_is_refused(tmp_path: Path, id: str) -> None:
    with running_agent(tmp_path, "crun") as agent:
        with pytest.raises(InvalidArgument):
            agent.create(id)
        with pytest.raises(InvalidArgument):
            agent.status(id)


def _no_bundle(path: Path) -> None:
    path.rename(path.parent / "elsewhere")


def _broken_json(path: Path) -> None:
    (path / "config.json").write_text('{"ociVersion":')


def _no_storages(path: Path) -> None:
    (path / f"storage-{path.name}").unlink()


def _unknown_storage(path: Path) -> None:
    (path / f"storage-{path.name}").write_text('[{"driver": "floppy"}]')


def _no_rootfs(path: Path) -> None:
    (path / "rootfs").rename(path / "elsewhere")


@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_no_bundle, Code.NOT_FOUND),
        (_broken_json, Code.INVALID_ARGUMENT),
        (_no_storages, Code.NOT_FOUND),
        (_unknown_storage, Code.UNIMPLEMENTED),
        (_no_rootfs, Code.UNKNOWN),
    ],
)
def test_a_bad_bundle_is_refused_and_leaves_nothing(
    tmp_path: Path, runtime: str, spoil: object, code: int
) -> None:
    assert callable(spoil)
    with running_agent(tmp_path, runtime) as agent:
        id = agent.bundle("true")
        spoil(agent.state / id)
        before = agent.descriptors()
        for _ in range(3):
            with pytest.raises(StatusError) as refused:
                agent.create(id, ["", "vsock://3:20001", "vsock://3:20002"])
            assert refused.value.code == code, refused.value
        assert agent.descriptors() == before
        assert not agent.known_to_runtime(id)
        agent.check()


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_command_that_does_not_exist_is_named(tmp_path: Path, runtime: str) -> None:
    with running_agent(tmp_path, runtime) as agent:
        id = agent.bundle("no-such-command")
        with pytest.raises(StatusError, match=r"(?i)no such file|not found"):
            _create_and_start(agent, id)
        # crun refuses at Create and leaves nothing to delete, runc may refuse at Start.
        with contextlib.suppress(NotFound):
            agent.delete(id)
        assert not agent.known_to_runtime(id)


def _create_and_start(agent: HostAgent, id: str) -> None:
    agent.create(id)
    agent.start(id)


def test_a_taken_port_is_refused_before_the_runtime_runs(tmp_path: Path) -> None:
    with running_agent(tmp_path, "crun") as agent:
        first, second = agent.bundle("sleep", "1000"), agent.bundle("true")
        agent.create(first, ["", "vsock://3:20001", ""])
        with pytest.raises(FailedPrecondition, match="20001"):
            agent.create(second, ["", "vsock://3:20001", ""])
        assert not agent.known_to_runtime(second)
        agent.delete(first)
