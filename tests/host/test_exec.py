"""Execs through the Task service, with both OCI runtimes."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import gevent
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api import task_pb2
from kuasar_agent.api.task_types_pb2 import CREATED, RUNNING, STOPPED
from kuasar_agent.ttrpc import Code, StatusError
from tests.support.agent import Agent, read_all, send_all
from tests.support.processes import command_line
from tests.support.refusal import refusal
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

KILLED = 128 + signal.SIGKILL
EXECS = 50


@pytest.fixture
def agent(shared_agent: Agent) -> Agent:
    return shared_agent


@pytest.fixture
def id(agent: Agent) -> str:
    """A container that runs; what it left is checked after it was deleted."""
    return agent.run("sleep", "1000")


def test_an_exec_goes_from_created_to_running_to_stopped(agent: Agent, id: str) -> None:
    port = agent.port()
    agent.add_exec(
        id, "x", "sh", "-c", "echo ready; read line; exit 7",
        stdin=f"vsock://3:{agent.port()}", stdout=f"vsock://3:{port}",
    )  # fmt: skip
    waiter = gevent.spawn(agent.wait, id, "x")
    created = agent.state_of(id, "x")
    assert (created.id, created.pid, created.status) == ("x", 0, CREATED)
    before = time.time()
    pid = agent.start(id, "x")
    running = agent.state_of(id, "x")
    assert (running.pid, running.status) == (pid, RUNNING)
    assert running.bundle == str(agent.state / id)
    with agent.dial(port) as peer:
        assert peer.recv(100) == b"ready\n"
        agent.close_io(id, "x")
        exit = waiter.get(timeout=TIMEOUT)
    assert exit == agent.wait(id, "x")
    stopped = agent.state_of(id, "x")
    assert (exit.exit_status, stopped.exit_status, stopped.status) == (7, 7, STOPPED)
    assert before <= exit.exited_at.ToNanoseconds() / 1e9 <= time.time()
    deleted = agent.delete(id, "x")
    assert (deleted.pid, deleted.exit_status, deleted.exited_at) == (pid, 7, exit.exited_at)
    assert refusal(agent.state_of, id, "x").code == Code.NOT_FOUND
    assert agent.state_of(id).status == RUNNING
    assert not (agent.state / id / "x.pid").exists()
    agent.delete(id)


def test_streams_reach_an_exec_byte_for_byte(agent: Agent, id: str) -> None:
    data = bytes(range(256)) * 4096
    stdin, stdout, stderr = (agent.port() for _ in range(3))
    agent.exec(
        id, "x", "sh", "-c", "cat; echo done >&2",
        stdin=f"vsock://3:{stdin}", stdout=f"vsock://3:{stdout}", stderr=f"vsock://3:{stderr}",
    )  # fmt: skip
    took = [gevent.spawn(read_all, agent.dial(port)) for port in (stdout, stderr)]
    with agent.dial(stdin) as peer:
        send_all(peer, data)
        assert [greenlet.get(timeout=TIMEOUT) for greenlet in took] == [data, b"done\n"]
    assert agent.wait(id, "x").exit_status == 0
    agent.delete(id, "x")
    agent.delete(id)


@pytest.mark.parametrize("asked_by", ["file", "request", "spec"])
def test_a_terminal_that_anybody_asks_for_is_one(agent: Agent, id: str, asked_by: str) -> None:
    port = agent.port()
    url = f"vsock://3:{port}"
    if asked_by == "file":
        io = {"stdin": "", "stdout": url, "stderr": "", "terminal": True}
        (agent.state / id / f"io-{id}-x").write_text(json.dumps(io))
    script = "tty; until [ \"$(stty size)\" = '30 100' ]; do sleep 0.05; done; exit 9"
    process = {"terminal": asked_by == "spec"}
    terminal = asked_by == "request"
    agent.add_exec(id, "x", "sh", "-c", script, stdout=url, terminal=terminal, process=process)
    assert agent.state_of(id, "x").terminal
    agent.start(id, "x")
    with agent.dial(port) as peer:
        assert peer.recv(100).startswith(b"/dev/pts/")
        agent.resize(id, 100, 30, "x")
        assert agent.wait(id, "x").exit_status == 9
    agent.delete(id, "x")
    agent.delete(id)


def test_a_terminal_has_the_size_that_was_set_before_the_start(agent: Agent, id: str) -> None:
    port = agent.port()
    url = f"vsock://3:{port}"
    agent.add_exec(id, "x", "sh", "-c", "stty size; read line", stdout=url, terminal=True)
    agent.resize(id, 100, 30, "x")
    agent.start(id, "x")
    with agent.dial(port) as peer:
        assert peer.recv(100) == b"30 100\r\n"
    agent.delete(id, "x")
    agent.delete(id)


def test_the_io_file_of_an_exec_wins_and_is_removed(agent: Agent, id: str) -> None:
    port = agent.port()
    file = agent.state / id / f"io-{id}-x"
    io = {"stdin": "", "stdout": f"vsock://3:{port}", "stderr": "", "terminal": False}
    file.write_text(json.dumps(io))
    agent.exec(id, "x", "echo", "from the file", stdout=f"vsock://3:{agent.port()}")
    assert read_all(agent.dial(port)) == b"from the file\n"
    assert not file.exists()
    agent.delete(id, "x")
    agent.delete(id)


def test_execs_of_one_container_start_beside_each_other(agent: Agent, id: str) -> None:
    """Each waits for all the others to run: none would get on if they were run in turn."""

    def run(number: int) -> list[int]:
        exec_id = f"x{number}"
        script = (
            f"mkdir -p /tmp/{id}; touch /tmp/{id}/{number}; "
            f"until [ $(ls /tmp/{id} | wc -l) = {EXECS} ]; do sleep 0.05; done; exit {number}"
        )
        agent.add_exec(id, exec_id, "sh", "-c", script)
        waiter = gevent.spawn(agent.wait, id, exec_id)
        agent.start(id, exec_id)
        exit = waiter.get(timeout=TIMEOUT)
        return [exit.exit_status, agent.delete(id, exec_id).exit_status]

    runs = [gevent.spawn(run, number) for number in range(EXECS)]
    gevent.joinall(runs, timeout=TIMEOUT)
    assert [run.value for run in runs] == [[number] * 2 for number in range(EXECS)]
    agent.delete(id)


def test_errors_of_concurrent_execs_are_their_own(agent: Agent, id: str) -> None:
    def fail(number: int) -> str:
        error = refusal(agent.exec, id, f"x{number}", f"no-such-{number}.")
        assert error.code == Code.UNKNOWN
        return error.message

    runs = [gevent.spawn(fail, number) for number in range(10)]
    messages = [run.get(timeout=TIMEOUT) for run in runs]
    for number, message in enumerate(messages):
        assert message.startswith("OCI runtime exec failed: ")
        assert f"no-such-{number}." in message
    agent.delete(id)


def test_an_exec_that_could_not_start_has_ended(agent: Agent, id: str) -> None:
    agent.add_exec(id, "x", "no-such-command", stdout=f"vsock://3:{agent.port()}")
    waiter = gevent.spawn(agent.wait, id, "x")
    refusal(agent.start, id, "x")
    assert waiter.get(timeout=TIMEOUT).exit_status == 255
    assert agent.state_of(id, "x").status == STOPPED
    assert refusal(agent.start, id, "x").code == Code.FAILED_PRECONDITION
    assert refusal(agent.kill, id, signal.SIGKILL, "x").code == Code.NOT_FOUND
    agent.delete(id, "x")
    agent.delete(id)


def test_an_exec_id_names_one_exec(agent: Agent, id: str) -> None:
    agent.add_exec(id, "x", "sh", "-c", "exit 3")
    assert refusal(agent.add_exec, id, "x", "true").code == Code.ALREADY_EXISTS
    agent.start(id, "x")
    assert refusal(agent.start, id, "x").code == Code.FAILED_PRECONDITION
    assert agent.wait(id, "x").exit_status == 3
    assert refusal(agent.start, id, "x").code == Code.FAILED_PRECONDITION
    agent.delete(id, "x")
    agent.exec(id, "x", "sh", "-c", "exit 4")
    assert agent.wait(id, "x").exit_status == 4
    agent.delete(id, "x")
    agent.delete(id)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_spec_that_makes_no_sense_is_an_invalid_argument(
    agent: Agent, id: str, text: bytes
) -> None:
    request = task_pb2.ExecProcessRequest(id=id, exec_id="x", spec=AnyMessage(value=text))
    error = refusal(agent.tasks.exec, request, timeout=TIMEOUT)
    assert error.code == Code.INVALID_ARGUMENT
    assert text or error.message == "no spec in request"
    assert refusal(agent.state_of, id, "x").code == Code.NOT_FOUND
    agent.delete(id)


def test_a_container_that_does_not_run_takes_no_execs(agent: Agent) -> None:
    id = agent.bundle("sleep", "1000")
    agent.create(id)
    assert refusal(agent.add_exec, id, "x", "true").code == Code.FAILED_PRECONDITION
    agent.start(id)
    agent.add_exec(id, "x", "true")
    agent.kill(id, signal.SIGKILL)
    agent.wait(id)
    assert refusal(agent.start, id, "x").code == Code.FAILED_PRECONDITION
    assert refusal(agent.add_exec, id, "y", "true").code == Code.FAILED_PRECONDITION
    agent.delete(id)


def test_kill_reaches_an_exec_and_nothing_else(agent: Agent, id: str) -> None:
    agent.add_exec(id, "x", "sleep", "1000")
    assert refusal(agent.kill, id, signal.SIGTERM, "x").code == Code.FAILED_PRECONDITION
    pid = agent.start(id, "x")
    # Until then it is the runtime's process, which handles signals its own way.
    eventually(lambda: command_line(pid), lambda line: line == "sleep 1000")
    for number in (65, 999):
        assert refusal(agent.kill, id, number, "x").code == Code.INVALID_ARGUMENT
    agent.kill(id, 0, "x")
    agent.kill(id, signal.SIGRTMIN + 3, "x")
    assert agent.wait(id, "x").exit_status == 128 + signal.SIGRTMIN + 3
    assert refusal(agent.kill, id, signal.SIGTERM, "x").code == Code.NOT_FOUND
    agent.delete(id, "x")
    assert agent.state_of(id).status == RUNNING
    agent.delete(id)


def test_delete_of_an_exec_that_runs_kills_it(agent: Agent, id: str) -> None:
    pid = agent.exec(id, "x", "sleep", "1000")
    waiter = gevent.spawn(agent.wait, id, "x")
    gevent.sleep(0)
    assert agent.delete(id, "x").exit_status == KILLED
    assert waiter.get(timeout=TIMEOUT).exit_status == KILLED
    assert not Path(f"/proc/{pid}").exists()
    agent.delete(id)


def test_delete_of_an_exec_that_never_ran_answers_those_who_wait(agent: Agent, id: str) -> None:
    agent.add_exec(id, "x", "true")
    waiter = gevent.spawn(agent.wait, id, "x")
    gevent.sleep(0)
    deleted = agent.delete(id, "x")
    assert (deleted.pid, deleted.exit_status) == (0, 255)
    assert waiter.get(timeout=TIMEOUT).exit_status == 255
    agent.delete(id)


def test_delete_of_an_exec_keeps_the_output_that_is_there(agent: Agent, id: str) -> None:
    port = agent.port()
    agent.exec(id, "x", "sh", "-c", "head -c 40000 /dev/zero", stdout=f"vsock://3:{port}")
    agent.wait(id, "x")
    took = gevent.spawn(read_all, agent.dial(port))
    agent.delete(id, "x")
    assert took.get(timeout=TIMEOUT) == bytes(40000)
    agent.delete(id)


@pytest.mark.parametrize("own_pids", [True, False])
def test_the_end_of_a_container_is_the_end_of_its_execs(agent: Agent, own_pids: bool) -> None:
    id = agent.run("sleep", "1000", own_pids=own_pids)
    agent.exec(id, "x", "sleep", "1000")
    agent.kill(id, signal.SIGKILL)
    assert agent.wait(id, "x").exit_status == KILLED
    assert agent.wait(id).exit_status == KILLED
    agent.delete(id)


def test_delete_of_a_container_takes_its_execs_along(agent: Agent, id: str) -> None:
    ids = [f"x{number}" for number in range(5)]
    for exec_id in ids:
        agent.add_exec(id, exec_id, "sleep", "1000", stdout=f"vsock://3:{agent.port()}")
    for exec_id in ids[1:]:
        agent.start(id, exec_id)
    waiters = [gevent.spawn(agent.wait, id, exec_id) for exec_id in ids]
    gevent.sleep(0)
    agent.delete(id)
    statuses = [waiter.get(timeout=TIMEOUT).exit_status for waiter in waiters]
    assert statuses == [255] + [KILLED] * 4


def test_execs_that_start_while_the_container_is_deleted_leave_nothing(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    for number in range(10):
        agent.add_exec(id, f"x{number}", "sleep", "1000")
    starts = [gevent.spawn(agent.start, id, f"x{number}") for number in range(10)]
    gevent.sleep(0.02)
    agent.delete(id)
    gevent.joinall(starts, timeout=TIMEOUT)
    errors = [start.exception for start in starts if not start.successful()]
    codes = {error.code for error in errors if isinstance(error, StatusError)}
    assert codes <= {Code.FAILED_PRECONDITION, Code.NOT_FOUND, Code.UNKNOWN}
    assert eventually(agent.children, lambda left: not left) == []


def test_an_exec_that_ends_at_once_is_never_lost(agent: Agent, id: str) -> None:
    def live(number: int) -> int:
        agent.exec(id, f"x{number}", "sh", "-c", f"exit {number}")
        status = agent.wait(id, f"x{number}").exit_status
        agent.delete(id, f"x{number}")
        return int(status)

    for first in range(0, 100, 10):
        lives = [gevent.spawn(live, first + number) for number in range(10)]
        assert [life.get(timeout=TIMEOUT) for life in lives] == list(range(first, first + 10))
    agent.delete(id)
