"""Stats, Update and OOM events on the cgroups of this machine, with both OCI runtimes.

Where the host's controllers are v1's, this is v1; tests/vm has both versions.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from kuasar_agent.api import cgroups_v1_pb2
from kuasar_agent.linux import cgroup_files
from kuasar_agent.services import sandbox
from kuasar_agent.ttrpc import Code, StatusError, Stub
from tests.support.agent import Agent
from tests.support.timeouts import TIMEOUT
from tests.support.usage import (
    HOG,
    MIB,
    cpu_ns,
    limits,
    oom_events,
    oom_kills,
    peak,
    stats,
    update,
    working_set,
)
from tests.support.waiting import eventually

KILLED = 128 + signal.SIGKILL
SMALL = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def hangs_end() -> Iterator[None]:
    with gevent.Timeout(TIMEOUT):
        yield


@pytest.fixture
def events(agent: Agent) -> Iterator[Stub]:
    """The sandbox service on a connection of its own, as the host has one for events."""
    with agent.connect() as client:
        yield client.stub(sandbox.SERVICE)


def limited(agent: Agent, resources: dict[str, Any], *command: str) -> str:
    """The id of a created container with limits."""
    id = agent.bundle(*command)
    config = agent.state / id / "config.json"
    spec = json.loads(config.read_text())
    spec["linux"]["resources"] = resources
    config.write_text(json.dumps(spec))
    agent.create(id)
    return id


def refusal(agent: Agent, id: str, resources: object) -> tuple[int, str]:
    with pytest.raises(StatusError) as caught:
        update(agent.tasks, id, resources)
    return caught.value.code, caught.value.message


def test_stats_answer_from_creation_to_deletion(agent: Agent) -> None:
    id = agent.bundle("sleep", "1000")
    agent.create(id)
    created = stats(agent.tasks, id)
    assert created.pids.current >= 1
    assert created.pids.limit == cgroup_files.NO_LIMIT
    agent.start(id)
    running = stats(agent.tasks, id)
    assert cpu_ns(running) >= cpu_ns(created)
    agent.kill(id, signal.SIGKILL)
    assert agent.wait(id).exit_status == KILLED
    stopped = stats(agent.tasks, id)
    assert stopped.pids.current == 0
    assert cpu_ns(stopped) >= cpu_ns(running)
    agent.delete(id)
    with pytest.raises(StatusError) as caught:
        stats(agent.tasks, id)
    assert caught.value.code == Code.NOT_FOUND


def test_stats_move_with_what_the_container_does(agent: Agent) -> None:
    second = 1_000_000_000
    id = agent.run("sh", "-c", f"{HOG}; while :; do :; done")
    used = eventually(lambda: stats(agent.tasks, id), lambda metrics: cpu_ns(metrics) > second)
    assert cpu_ns(used) > second
    assert peak(used) > 64 * MIB > working_set(used) > 0
    if isinstance(used, cgroups_v1_pb2.Metrics):
        assert abs(sum(used.cpu.usage.per_cpu) - cpu_ns(used)) < second / 2
        assert abs(used.cpu.usage.user + used.cpu.usage.kernel - cpu_ns(used)) < second / 2
    assert "lo" not in {entry.name for entry in used.network}
    agent.delete(id)


def test_limits_grow_and_shrink_while_the_container_runs(agent: Agent) -> None:
    id = limited(agent, {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}, "sleep", "1000")
    agent.start(id)
    for limit, swap in ((128, 128), (32, 48), (40, 40), (64, None), (16, 16)):
        memory = {"limit": limit * MIB} | ({"swap": swap * MIB} if swap else {})
        update(agent.tasks, id, {"memory": memory, "pids": {"limit": limit}})
        used = stats(agent.tasks, id)
        assert (*limits(used), used.pids.limit) == (limit * MIB, (swap or limit) * MIB, limit)
    agent.delete(id)


def test_cpu_limits_are_written_and_a_created_container_takes_them(agent: Agent) -> None:
    id = agent.bundle("sleep", "1000")
    place = cgroup_files.locate(agent.create(id))
    cpu = {"shares": 512, "quota": 50_000, "period": 200_000, "cpus": "0,4000-4095", "mems": ""}
    update(agent.tasks, id, {"cpu": cpu})
    update(agent.tasks, id, {"cpu": {"cpus": "4000"}})
    assert place.read("cpuset.cpus") == "0\n"
    assert place.read("cpu.shares") == "512\n"
    assert place.read("cpu.cfs_quota_us") == "50000\n"
    assert place.read("cpu.cfs_period_us") == "200000\n"
    agent.delete(id)


def test_what_cannot_be_parsed_is_refused_before_the_container_is_looked_up(agent: Agent) -> None:
    for bad in (b"", b"{", b"[]", {"cpu": {"shares": "512"}}):
        code, text = refusal(agent, "nobody", bad)
        assert code == Code.INVALID_ARGUMENT
        assert text.startswith("failed to parse resource spec: ")
    assert refusal(agent, "nobody", {})[0] == Code.NOT_FOUND


def test_a_limit_that_the_kernel_refuses_is_named(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    update(agent.tasks, id, {})
    code, text = refusal(agent, id, {"cpu": {"quota": 1}})
    assert code == Code.INVALID_ARGUMENT
    assert "'1' to cpu." in text
    agent.kill(id, signal.SIGKILL)
    agent.wait(id)
    assert refusal(agent, id, {})[0] == Code.FAILED_PRECONDITION
    agent.delete(id)


def test_every_child_that_the_oom_killer_takes_is_told(agent: Agent, events: Stub) -> None:
    id = limited(agent, SMALL, "sh", "-c", f"{HOG}; {HOG}; exec sleep 1000")
    told = oom_events(events)
    agent.start(id)
    assert [next(told), next(told)] == [id, id]
    assert eventually(lambda: oom_kills(stats(agent.tasks, id)), lambda count: count == 2) == 2
    agent.kill(id, signal.SIGKILL)
    agent.delete(id)


def test_the_kill_of_the_first_process_is_told_before_its_exit(agent: Agent, events: Stub) -> None:
    order = []
    id = limited(agent, SMALL, "sh", "-c", f"exec {HOG}")

    def hear() -> None:
        assert next(oom_events(events)) == id
        order.append("oom")

    def wait() -> None:
        assert agent.wait(id).exit_status == KILLED
        order.append("exit")

    waiting = [gevent.spawn(hear), gevent.spawn(wait)]
    agent.start(id)
    gevent.joinall(waiting, raise_error=True)
    assert order == ["oom", "exit"]
    agent.delete(id)
