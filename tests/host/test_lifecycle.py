"""The life of a container through the Task service, with both OCI runtimes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import gevent
import pytest
from gevent.socket import socket

from kuasar_agent.api import task_pb2
from kuasar_agent.api.task_types_pb2 import CREATED, RUNNING, STOPPED
from kuasar_agent.services import task
from kuasar_agent.ttrpc import Code, StatusError
from tests.support.agent import Agent, read_all, send_all
from tests.support.processes import children_of, command_line
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

KILLED = 128 + signal.SIGKILL


@pytest.fixture
def agent(module_agent: Agent) -> Agent:
    return module_agent


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def output(agent: Agent) -> tuple[int, str]:
    port = agent.port()
    return port, f"vsock://3:{port}"


def take(peer: socket) -> gevent.Greenlet[..., bytes]:
    return gevent.spawn(read_all, peer)


def test_a_container_goes_from_created_to_running_to_stopped(agent: Agent) -> None:
    port, url = output(agent)
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    id = agent.bundle("sh", "-c", script)
    before = time.time()
    pid = agent.create(id, stdout=url)
    created = agent.state_of(id)
    assert (created.id, created.pid, created.status) == (id, pid, CREATED)
    assert created.bundle == str(agent.state / id)
    assert not created.HasField("exited_at")
    assert agent.start(id) == pid
    assert agent.state_of(id).status == RUNNING
    with agent.dial(port) as peer:
        # pid 1 of a namespace ignores TERM until it has a handler
        assert peer.recv(100) == b"ready\n"
        agent.kill(id, signal.SIGTERM)
        exit = agent.wait(id)
    stopped = agent.state_of(id)
    assert (exit.exit_status, stopped.exit_status, stopped.status) == (7, 7, STOPPED)
    assert stopped.pid == pid
    assert exit.exited_at == stopped.exited_at
    assert before <= exit.exited_at.ToNanoseconds() / 1e9 <= time.time()
    deleted = agent.delete(id)
    assert (deleted.pid, deleted.exit_status, deleted.exited_at) == (pid, 7, exit.exited_at)
    assert_not_found(agent, id)


def assert_not_found(agent: Agent, id: str) -> None:
    for call in (agent.state_of, agent.start, agent.wait, agent.delete):
        with pytest.raises(StatusError) as caught:
            call(id)
        assert caught.value.code == Code.NOT_FOUND


@pytest.mark.parametrize("status", [0, 1, 255])
def test_the_exit_code_is_the_programs(agent: Agent, status: int) -> None:
    id = agent.run("sh", "-c", f"exit {status}")
    assert agent.wait(id).exit_status == status
    assert agent.delete(id).exit_status == status


def test_a_program_killed_by_a_signal_has_128_and_its_number(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    agent.kill(id, signal.SIGKILL)
    assert agent.wait(id).exit_status == KILLED
    agent.delete(id)


def test_without_a_pid_namespace_the_other_processes_end_with_the_first(agent: Agent) -> None:
    port, url = output(agent)
    id = agent.bundle("sh", "-c", "sleep 1000 & echo $!; read x; kill -TERM $$", own_pids=False)
    stdin = agent.port()
    agent.create(id, stdout=url, stdin=f"vsock://3:{stdin}")
    peer, keys = agent.dial(port), agent.dial(stdin)
    agent.start(id)
    other = int(peer.recv(100))
    sleeps = "sleep 1000"
    assert eventually(lambda: command_line(other), lambda line: line == sleeps) == sleeps
    send_all(keys, b"go on\n")
    assert agent.wait(id).exit_status == 128 + signal.SIGTERM
    assert eventually(lambda: Path(f"/proc/{other}").exists(), lambda alive: not alive) is False
    agent.delete(id)
    peer.close()
    keys.close()


def test_kill_all_reaches_every_process(agent: Agent) -> None:
    id = agent.run("sh", "-c", "sleep 1000 & sleep 1000 & wait")
    agent.kill(id, signal.SIGKILL, everyone=True)
    assert agent.wait(id).exit_status == KILLED
    agent.delete(id)


def test_output_arrives_byte_for_byte_each_stream_on_its_own_port(agent: Agent) -> None:
    out, err = os.urandom(1 << 20), os.urandom(300_001)
    (agent.rootfs / "out").write_bytes(out)
    (agent.rootfs / "err").write_bytes(err)
    (out_port, out_url), (err_port, err_url) = output(agent), output(agent)
    id = agent.bundle("sh", "-c", "cat /err >&2 & cat /out; wait")
    agent.create(id, stdout=out_url, stderr=err_url)
    took = [take(agent.dial(out_port)), take(agent.dial(err_port))]
    agent.start(id)
    assert agent.wait(id).exit_status == 0
    assert [greenlet.get(timeout=TIMEOUT) for greenlet in took] == [out, err]
    agent.delete(id)


def test_output_waits_for_a_reader_that_comes_after_the_exit(agent: Agent) -> None:
    port, url = output(agent)
    id = agent.run("echo", "late", stdout=url)
    agent.wait(id)
    assert read_all(agent.dial(port)) == b"late\n"
    agent.delete(id)


def test_input_reaches_the_program_with_its_end(agent: Agent) -> None:
    data = os.urandom(1 << 20)
    port, url = output(agent)
    stdin = agent.port()
    id = agent.run("cat", stdin=f"vsock://3:{stdin}", stdout=url)
    took = take(agent.dial(port))
    peer = agent.dial(stdin)
    send_all(peer, data)
    assert agent.wait(id).exit_status == 0
    assert took.get(timeout=TIMEOUT) == data
    agent.delete(id)
    peer.close()


def test_the_io_file_of_the_bundle_wins_over_the_request(agent: Agent) -> None:
    port, url = output(agent)
    id = agent.bundle("echo", "from the file")
    (agent.state / id / f"io-{id}").write_text(
        f'{{"stdin": "", "stdout": "{url}", "stderr": "", "terminal": false}}'
    )
    agent.create(id, stdout=f"vsock://3:{agent.port()}")
    assert agent.state_of(id).stdout == url
    peer = agent.dial(port)
    agent.start(id)
    assert read_all(peer) == b"from the file\n"
    agent.wait(id)
    agent.delete(id)


def test_a_created_container_can_be_deleted(agent: Agent) -> None:
    id = agent.bundle("true")
    pid = agent.create(id)
    deleted = agent.delete(id)
    assert (deleted.pid, deleted.exit_status) == (pid, KILLED)
    assert_not_found(agent, id)


def test_delete_kills_what_runs(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    assert agent.delete(id).exit_status == KILLED
    assert_not_found(agent, id)


def test_an_id_can_be_used_again_after_delete(agent: Agent) -> None:
    id = agent.run("sh", "-c", "exit 4")
    agent.wait(id)
    agent.delete(id)
    agent.create(id)
    agent.start(id)
    assert agent.wait(id).exit_status == 4
    agent.delete(id)


def test_wait_is_answered_when_delete_comes_between(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    # one connection keeps the order of its calls
    waiter, deleter = gevent.spawn(agent.wait, id), gevent.spawn(agent.delete, id)
    exit, deleted = waiter.get(timeout=TIMEOUT), deleter.get(timeout=TIMEOUT)
    assert (exit.exit_status, exit.exited_at) == (KILLED, deleted.exited_at)


def test_of_two_deletes_one_succeeds_and_the_other_finds_nothing(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    first, second = gevent.spawn(agent.delete, id), gevent.spawn(agent.delete, id)
    gevent.joinall([first, second], timeout=TIMEOUT)
    errors = [g.exception.code for g in (first, second) if isinstance(g.exception, StatusError)]
    assert (errors, [first.successful(), second.successful()].count(True)) == ([5], 1)


def test_every_waiter_gets_the_same_exit(agent: Agent) -> None:
    id = agent.bundle("sh", "-c", "exit 3")
    agent.create(id)
    clients = [agent.connect() for _ in range(5)]
    stubs = [client.stub(task.SERVICE) for client in clients]
    request = task_pb2.WaitRequest(id=id)
    waiters = [gevent.spawn(stub.wait, request, timeout=TIMEOUT) for stub in stubs * 40]
    gevent.sleep(0)
    agent.start(id)
    gevent.joinall(waiters, timeout=TIMEOUT)
    exits = [waiter.get(block=False) for waiter in waiters]
    assert {exit.exit_status for exit in exits} == {3}
    assert len({exit.exited_at.ToNanoseconds() for exit in exits}) == 1
    assert agent.wait(id) == exits[0]
    for client in clients:
        client.close()
    agent.delete(id)


def test_a_wait_that_times_out_leaves_the_container_alone(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    with pytest.raises(StatusError) as caught:
        agent.tasks.wait(task_pb2.WaitRequest(id=id), timeout=0.1)
    assert caught.value.code == Code.DEADLINE_EXCEEDED
    assert agent.state_of(id).status == RUNNING
    agent.delete(id)


def test_a_container_starts_once(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    for end in (False, True):
        if end:
            agent.kill(id, signal.SIGKILL)
            agent.wait(id)
        with pytest.raises(StatusError) as caught:
            agent.start(id)
        assert caught.value.code == Code.FAILED_PRECONDITION
    agent.delete(id)


def test_an_id_names_one_container(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    with pytest.raises(StatusError) as caught:
        agent.create(id)
    assert caught.value.code == Code.ALREADY_EXISTS
    assert agent.state_of(id).status == RUNNING
    agent.delete(id)


def test_of_concurrent_creates_one_succeeds(agent: Agent) -> None:
    id = agent.bundle("true")
    creates = [gevent.spawn(agent.create, id) for _ in range(5)]
    gevent.joinall(creates, timeout=TIMEOUT)
    codes = [g.exception.code for g in creates if isinstance(g.exception, StatusError)]
    assert codes == [Code.ALREADY_EXISTS] * 4
    agent.delete(id)


def test_kill_of_a_stopped_container_finds_no_process(agent: Agent) -> None:
    id = agent.run("true")
    agent.wait(id)
    with pytest.raises(StatusError) as caught:
        agent.kill(id, signal.SIGKILL)
    assert caught.value.code == Code.NOT_FOUND
    agent.delete(id)


def test_kill_refuses_what_is_no_signal(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    with pytest.raises(StatusError) as caught:
        agent.kill(id, 999)
    assert caught.value.code == Code.INVALID_ARGUMENT
    agent.delete(id)


def test_kill_before_start_ends_the_container(agent: Agent) -> None:
    id = agent.bundle("true")
    agent.create(id)
    agent.kill(id, signal.SIGKILL)
    assert agent.wait(id).exit_status == KILLED
    agent.delete(id)


def test_connect_names_the_agent_and_the_task(agent: Agent) -> None:
    id = agent.bundle("true")
    pid = agent.create(id)
    reply = agent.tasks.connect(task_pb2.ConnectRequest(id=id), timeout=TIMEOUT)
    assert (reply.shim_pid, reply.task_pid) == (agent.pid, pid)
    agent.delete(id)


def test_shutdown_leaves_the_machine_and_its_containers_alone(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    for now in (False, True):
        request = task_pb2.ShutdownRequest(id=id, now=now)
        agent.tasks.shutdown(request, timeout=TIMEOUT)
    assert agent.state_of(id).status == RUNNING
    agent.delete(id)


def test_the_newer_service_name_is_served_too(agent: Agent) -> None:
    id = agent.run("sh", "-c", "exit 6")
    stub = agent.stub_v3()
    assert stub.wait(task_pb2.WaitRequest(id=id), timeout=TIMEOUT).exit_status == 6
    assert stub.delete(task_pb2.DeleteRequest(id=id), timeout=TIMEOUT).exit_status == 6


def test_termination_signals_change_nothing(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(agent.pid, number)
    assert agent.state_of(id).status == RUNNING
    assert len(children_of(agent.pid)) == 1
    agent.delete(id)


def test_delete_ends_every_process_without_a_pid_namespace_too(agent: Agent) -> None:
    port, url = output(agent)
    id = agent.run("sh", "-c", "sleep 1000 & echo $!; wait", own_pids=False, stdout=url)
    with agent.dial(port) as peer:
        other = int(peer.recv(100))
        assert agent.delete(id).exit_status == KILLED
    assert eventually(lambda: Path(f"/proc/{other}").exists(), lambda alive: not alive) is False
