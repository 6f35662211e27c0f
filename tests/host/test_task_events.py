"""The task events of containerd, as GetEvents hands them out when asked for all."""

from __future__ import annotations

import signal

import pytest

from kuasar_agent.api import task_events_pb2 as messages
from tests.support.agent import Agent
from tests.support.refusal import refusal
from tests.support.task_events import events_until_delete


@pytest.fixture
def agent(shared_agent: Agent) -> Agent:
    return shared_agent


def test_a_life_is_told_in_order_with_every_field(agent: Agent) -> None:
    url = f"vsock://3:{agent.port()}"
    id = agent.bundle("sleep", "1000")
    pid = agent.create(id, stdout=url)
    agent.start(id)
    exec_pid = agent.exec(id, "x", "sh", "-c", "exit 3")
    exec_exit = agent.wait(id, "x")
    agent.delete(id, "x")
    agent.pause(id)
    agent.resume(id)
    agent.kill(id, signal.SIGKILL)
    exit = agent.wait(id)
    agent.delete(id)
    assert events_until_delete(agent) == [
        (
            "/tasks/create",
            messages.TaskCreate(
                container_id=id, bundle=f"{agent.state}/{id}", pid=pid,
                io=messages.TaskIO(stdout=url),
            ),
        ),
        ("/tasks/start", messages.TaskStart(container_id=id, pid=pid)),
        ("/tasks/exec-added", messages.TaskExecAdded(container_id=id, exec_id="x")),
        (
            "/tasks/exec-started",
            messages.TaskExecStarted(container_id=id, exec_id="x", pid=exec_pid),
        ),
        (
            "/tasks/exit",
            messages.TaskExit(
                container_id=id, id="x", pid=exec_pid, exit_status=3,
                exited_at=exec_exit.exited_at,
            ),
        ),
        ("/tasks/paused", messages.TaskPaused(container_id=id)),
        ("/tasks/resumed", messages.TaskResumed(container_id=id)),
        (
            "/tasks/exit",
            messages.TaskExit(
                container_id=id, id=id, pid=pid, exit_status=137, exited_at=exit.exited_at
            ),
        ),
        (
            "/tasks/delete",
            messages.TaskDelete(
                container_id=id, pid=pid, exit_status=137, exited_at=exit.exited_at
            ),
        ),
    ]  # fmt: skip


def test_an_exit_never_comes_before_its_start(agent: Agent) -> None:
    for _ in range(10):
        id = agent.run("true")
        agent.delete(id)
        topics = [topic for topic, _ in events_until_delete(agent)]
        assert topics == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]


def test_a_create_that_fails_is_not_told(agent: Agent) -> None:
    refusal(agent.create, agent.bundle("no-such-command"))
    id = agent.bundle("true")
    agent.create(id)
    agent.delete(id)
    events = events_until_delete(agent)
    assert [topic for topic, _ in events] == ["/tasks/create", "/tasks/exit", "/tasks/delete"]
    assert {event.container_id for _, event in events} == {id}


def test_nobody_who_takes_events_holds_nothing_up(agent: Agent) -> None:
    """More events than the queue keeps; the newest are there, the calls went on."""
    id = agent.run("sleep", "1000")
    for number in range(1100):
        agent.add_exec(id, f"x{number}", "true")
    agent.delete(id)
    events = events_until_delete(agent)
    assert len(events) == 1024
    assert [topic for topic, _ in events[-2:]] == ["/tasks/exit", "/tasks/delete"]


@pytest.mark.parametrize("own_pids", [True, False])
def test_the_exit_of_the_init_process_is_the_last_of_its_container(
    agent: Agent, own_pids: bool
) -> None:
    for _ in range(5):
        id = agent.run("sleep", "1000", own_pids=own_pids)
        for number in range(6):
            agent.exec(id, f"x{number}", "sleep", "1000")
        agent.kill(id, signal.SIGKILL)
        assert agent.wait(id).exit_status == 128 + signal.SIGKILL
        agent.delete(id)
        exits = [event.id for topic, event in events_until_delete(agent) if topic == "/tasks/exit"]
        assert len(exits) == 7
        assert exits[-1] == id
