"""Stats, Update and OOM events on the cgroups of this machine, with both OCI runtimes.

Where the host's controllers are v1's, this is v1; tests/vm has both versions.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import cgroups_v1_pb2, cgroups_v2_pb2, task_events_pb2, task_pb2
from kuasar_agent.linux import cgroup_files
from kuasar_agent.services import sandbox
from kuasar_agent.ttrpc import Code, StatusError
from tests.host.agent import TIMEOUT, Agent, eventually

KILLED = 128 + signal.SIGKILL
MIB = 1 << 20
HOG = f"dd if=/dev/zero of=/dev/null bs={64 * MIB} count=1"
"""Needs 64 MiB of memory at once."""

Metrics = cgroups_v1_pb2.Metrics | cgroups_v2_pb2.Metrics


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def hangs_end() -> Iterator[None]:
    with gevent.Timeout(TIMEOUT):
        yield


def limited(agent: Agent, resources: Mapping[str, Any], *command: str) -> str:
    """The id of a new bundle with limits."""
    id = agent.bundle(*command)
    config = agent.state / id / "config.json"
    spec = json.loads(config.read_text())
    spec["linux"]["resources"] = resources
    config.write_text(json.dumps(spec))
    return id


def stats(agent: Agent, id: str) -> Metrics:
    reply = agent.tasks.stats(task_pb2.StatsRequest(id=id), timeout=TIMEOUT).stats
    kinds = {"io.containerd.cgroups.v1.Metrics": cgroups_v1_pb2.Metrics}
    kinds["io.containerd.cgroups.v2.Metrics"] = cgroups_v2_pb2.Metrics  # type: ignore[assignment]
    return kinds[reply.type_url].FromString(reply.value)


def cpu_ns(metrics: Metrics) -> int:
    if isinstance(metrics, cgroups_v1_pb2.Metrics):
        return metrics.cpu.usage.total
    return metrics.cpu.usage_usec * 1000


def memory(metrics: Metrics) -> int:
    if isinstance(metrics, cgroups_v1_pb2.Metrics):
        return metrics.memory.usage.usage
    return metrics.memory.usage


def update(agent: Agent, id: str, resources: object) -> None:
    data = resources if isinstance(resources, bytes) else json.dumps(resources).encode()
    kind = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
    message = AnyMessage(type_url=kind, value=data)
    agent.tasks.update(task_pb2.UpdateTaskRequest(id=id, resources=message), timeout=TIMEOUT)


def oom_events(agent: Agent) -> Iterator[str]:
    """The containers of the events, as they come."""
    with agent.connect() as client:
        stub = client.stub(sandbox.SERVICE)
        while True:
            envelope = stub.get_events(Empty(), timeout=TIMEOUT)
            assert (envelope.topic, envelope.event.type_url) == (
                "/tasks/oom",
                "containerd.events.TaskOOM",
            )
            yield task_events_pb2.TaskOOM.FromString(envelope.event.value).container_id


def test_stats_answer_from_creation_to_deletion(agent: Agent) -> None:
    id = agent.bundle("sleep", "1000")
    pid = agent.create(id)
    created = stats(agent, id)
    assert created.pids.current >= 1
    assert created.pids.limit == cgroup_files.NO_LIMIT
    agent.start(id)
    assert cpu_ns(stats(agent, id)) >= cpu_ns(created)
    agent.kill(id, signal.SIGKILL)
    assert agent.wait(id).exit_status == KILLED
    assert stats(agent, id).pids.current == 0
    assert not Path(f"/proc/{pid}").exists()
    agent.delete(id)
    with pytest.raises(StatusError) as caught:
        stats(agent, id)
    assert caught.value.code == Code.NOT_FOUND


def test_stats_move_with_what_the_container_does(agent: Agent) -> None:
    script = f"{HOG}; while :; do :; done"
    id = agent.run("sh", "-c", script)
    first = stats(agent, id)
    later = eventually(lambda: stats(agent, id), lambda m: cpu_ns(m) > cpu_ns(first) + 200_000_000)
    assert cpu_ns(later) > cpu_ns(first) + 200_000_000
    assert memory(later) > 0
    if isinstance(later, cgroups_v1_pb2.Metrics):
        assert later.memory.usage.max > 64 * MIB
        assert sum(later.cpu.usage.per_cpu) >= cpu_ns(first)
        assert later.cpu.usage.user + later.cpu.usage.kernel > 100_000_000
    assert len(later.network) >= 0
    assert "lo" not in {entry.name for entry in later.network}
    agent.delete(id)


def test_limits_change_up_and_down(agent: Agent) -> None:
    id = limited(
        agent,
        {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}, "pids": {"limit": 100}},
        "sleep",
        "1000",
    )
    agent.create(id)
    pid = agent.start(id)
    place = cgroup_files.locate(pid, root_of(agent))
    for limit in (128 * MIB, 32 * MIB):
        update(agent, id, {"memory": {"limit": limit, "swap": limit}, "pids": {"limit": 50}})
        assert memory_limit(stats(agent, id)) == limit
        assert stats(agent, id).pids.limit == 50
    update(
        agent,
        id,
        {"cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0-4095"}},
    )
    if place.version == 1:
        assert place.read("cpu.shares") == "512\n"
        assert place.read("cpu.cfs_quota_us") == "50000\n"
    agent.delete(id)


def memory_limit(metrics: Metrics) -> int:
    if isinstance(metrics, cgroups_v1_pb2.Metrics):
        assert metrics.memory.usage.limit == metrics.memory.swap.limit
        return metrics.memory.usage.limit
    return metrics.memory.usage_limit


def root_of(agent: Agent) -> str:
    return "/sys/fs/cgroup"


def test_a_child_that_the_oom_killer_takes_is_told_while_the_container_runs(agent: Agent) -> None:
    script = f"{HOG}; {HOG}; sleep 1000"
    id = limited(agent, {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}, "sh", "-c", script)
    agent.create(id)
    events = oom_events(agent)
    agent.start(id)
    assert [next(events), next(events)] == [id, id]
    agent.kill(id, signal.SIGKILL)
    agent.delete(id)


def test_the_kill_of_the_first_process_is_told_before_its_exit(agent: Agent) -> None:
    order = []
    id = limited(agent, {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}, "sh", "-c", f"exec {HOG}")
    agent.create(id)

    def events() -> None:
        assert next(oom_events(agent)) == id
        order.append("oom")

    def exit() -> None:
        assert agent.wait(id).exit_status == KILLED
        order.append("exit")

    waiting = [gevent.spawn(events), gevent.spawn(exit)]
    agent.start(id)
    gevent.joinall(waiting, raise_error=True)
    assert order == ["oom", "exit"]
    agent.delete(id)
