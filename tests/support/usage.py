"""Asking an agent for what containers use, changing what they may use, hearing of OOM kills."""

from __future__ import annotations

import json
from collections.abc import Iterator

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import cgroups_v1_pb2, cgroups_v2_pb2, task_events_pb2, task_pb2
from kuasar_agent.ttrpc import Stub
from tests.support.timeouts import TIMEOUT

MIB = 1 << 20
HOG = f"dd if=/dev/zero of=/dev/null bs={64 * MIB} count=1"
"""A command that needs 64 MiB of memory at once."""

Metrics = cgroups_v1_pb2.Metrics | cgroups_v2_pb2.Metrics

_KINDS: dict[str, type[Metrics]] = {
    "io.containerd.cgroups.v1.Metrics": cgroups_v1_pb2.Metrics,
    "io.containerd.cgroups.v2.Metrics": cgroups_v2_pb2.Metrics,
}


def stats(task: Stub, id: str) -> Metrics:
    reply = task.stats(task_pb2.StatsRequest(id=id), timeout=TIMEOUT).stats
    return _KINDS[reply.type_url].FromString(reply.value)


def cpu_ns(metrics: Metrics) -> int:
    """CPU time as the kubelet computes it."""
    if isinstance(metrics, cgroups_v1_pb2.Metrics):
        return metrics.cpu.usage.total
    return metrics.cpu.usage_usec * 1000


def working_set(metrics: Metrics) -> int:
    """Memory as the kubelet computes it."""
    if isinstance(metrics, cgroups_v1_pb2.Metrics):
        return metrics.memory.usage.usage - metrics.memory.total_inactive_file
    return metrics.memory.usage - metrics.memory.inactive_file


def peak(metrics: Metrics) -> int:
    """The most memory that was used at once."""
    if isinstance(metrics, cgroups_v1_pb2.Metrics):
        return metrics.memory.usage.max
    return metrics.memory.max_usage


def limits(metrics: Metrics) -> tuple[int, int]:
    """Of memory, and of memory and swap together."""
    if isinstance(metrics, cgroups_v1_pb2.Metrics):
        return metrics.memory.usage.limit, metrics.memory.swap.limit
    memory = metrics.memory
    return memory.usage_limit, memory.usage_limit + memory.swap_limit


def bytes_read(metrics: Metrics) -> int:
    """From block devices."""
    if isinstance(metrics, cgroups_v1_pb2.Metrics):
        entries = metrics.blkio.io_service_bytes_recursive
        return sum(entry.value for entry in entries if entry.op == "Read")
    return sum(entry.rbytes for entry in metrics.io.usage)


def oom_kills(metrics: Metrics) -> int:
    if isinstance(metrics, cgroups_v1_pb2.Metrics):
        return metrics.memory_oom_control.oom_kill
    return metrics.memory_events.oom_kill


def update(task: Stub, id: str, resources: object) -> None:
    """`resources` is a LinuxResources, or bytes to be sent in its place."""
    data = resources if isinstance(resources, bytes) else json.dumps(resources).encode()
    kind = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
    message = AnyMessage(type_url=kind, value=data)
    task.update(task_pb2.UpdateTaskRequest(id=id, resources=message), timeout=TIMEOUT)


def oom_events(sandbox: Stub) -> Iterator[str]:
    """The containers of the events, as they come."""
    while True:
        envelope = sandbox.get_events(Empty(), timeout=TIMEOUT)
        kind = envelope.topic, envelope.event.type_url
        assert kind == ("/tasks/oom", "containerd.events.TaskOOM")
        yield task_events_pb2.TaskOOM.FromString(envelope.event.value).container_id
