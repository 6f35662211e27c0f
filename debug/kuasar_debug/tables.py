"""What the agent says of its containers, as rows to print."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from kuasar_agent.api import (
    cgroups_v1_pb2,
    cgroups_v2_pb2,
    events_pb2,
    sandbox_pb2,
    task_events_pb2,
    task_pb2,
    task_types_pb2,
)
from kuasar_agent.ttrpc import Client, NotFound, StatusError
from kuasar_debug.address import Target
from kuasar_host.errors import DebugError

TASK = task_pb2.DESCRIPTOR.services_by_name["Task"]
SANDBOX = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]

PS = ("container", "pid", "status", "exit", "processes")
STATS = ("container", "cpu", "memory", "limit", "pids", "oom")
TOP = ("container", "cpu%", "memory", "limit", "pids")

_NANO = 1e9
# The kernels' ways to say that there is no limit: a page-aligned LONG_MAX, and "max".
_NO_LIMIT = 1 << 62
_WITHIN = 10.0
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Usage(NamedTuple):
    """What a container used; memory in bytes."""

    container: str
    cpu_ns: int
    memory: int
    limit: int
    """0: none."""
    pids: int
    oom_kills: int
    at_ns: int
    """When, on time.monotonic_ns()."""


def names(target: Target, given: Sequence[str]) -> Sequence[str]:
    """The containers asked for, else those with a bundle in the shared directory."""
    if given:
        return given
    if target.directory is None:
        raise DebugError("name the containers: their bundles cannot be seen from here")
    return sorted(path.parent.name for path in target.directory.glob("shared/*/config.json"))


def processes(client: Client, ids: Sequence[str], *, must_exist: bool) -> list[dict[str, Any]]:
    """A row for each container of `ids`; those that the agent does not know are left out, or not.

    Raises StatusError.
    """
    task = client.stub(TASK)
    rows = []
    for id in ids:
        try:
            state = task.state(task_pb2.StateRequest(id=id), timeout=_WITHIN)
        except NotFound:
            if must_exist:
                raise
            continue
        status = task_types_pb2.Status.Name(state.status)
        ended = state.status == task_types_pb2.STOPPED
        found = []
        if not ended:
            reply = task.pids(task_pb2.PidsRequest(id=id), timeout=_WITHIN)
            found = [process.pid for process in reply.processes]
        row = {"container": id, "pid": state.pid, "status": status.lower()}
        rows.append({**row, "exit": state.exit_status if ended else None, "processes": found})
    return rows


def metrics(
    client: Client, ids: Sequence[str], *, must_exist: bool
) -> Iterator[tuple[str, Message]]:
    """The cgroup metrics of each container of `ids` that has not ended; else as `processes`."""
    task = client.stub(TASK)
    for id in ids:
        try:
            state = task.state(task_pb2.StateRequest(id=id), timeout=_WITHIN)
            if state.status == task_types_pb2.STOPPED:
                continue
            stats = task.stats(task_pb2.StatsRequest(id=id), timeout=_WITHIN).stats
        except NotFound:
            if must_exist:
                raise
            continue
        yield id, _unpack(stats.type_url, stats.value)


def usage(id: str, metrics: Message) -> Usage:
    """The common part of both cgroup versions."""
    now = time.monotonic_ns()
    if isinstance(metrics, cgroups_v1_pb2.Metrics):
        memory = metrics.memory.usage
        limit = memory.limit if memory.limit < _NO_LIMIT else 0
        cpu, killed = metrics.cpu.usage.total, metrics.memory_oom_control.oom_kill
        return Usage(id, cpu, memory.usage, limit, metrics.pids.current, killed, now)
    assert isinstance(metrics, cgroups_v2_pb2.Metrics)
    limit = metrics.memory.usage_limit
    limit = limit if limit < _NO_LIMIT else 0
    cpu, killed = metrics.cpu.usage_usec * 1000, metrics.memory_events.oom_kill
    return Usage(id, cpu, metrics.memory.usage, limit, metrics.pids.current, killed, now)


def stats_row(usage: Usage) -> dict[str, Any]:
    return {
        **_memory(usage),
        "cpu": f"{usage.cpu_ns / _NANO:.2f} s",
        "oom": usage.oom_kills,
    }


def top_row(usage: Usage, before: Usage | None) -> dict[str, Any]:
    """`before` is what the container had used some time ago."""
    share = None
    if before is not None and usage.at_ns > before.at_ns:
        used = usage.cpu_ns - before.cpu_ns
        share = f"{100 * used / (usage.at_ns - before.at_ns):.1f}"
    return {**_memory(usage), "cpu%": share}


def _memory(usage: Usage) -> dict[str, Any]:
    return {
        "container": usage.container,
        "memory": _bytes(usage.memory),
        "limit": _bytes(usage.limit) if usage.limit else None,
        "pids": usage.pids,
    }


def event(envelope: events_pb2.Envelope) -> dict[str, Any]:
    """An event with its message as a dictionary."""
    message = _unpack(envelope.event.type_url, envelope.event.value)
    return {
        "timestamp": envelope.timestamp.ToJsonString(),
        "namespace": envelope.namespace,
        "topic": envelope.topic,
        "event": to_dict(message),
    }


def event_line(event: Mapping[str, Any]) -> str:
    fields = " ".join(f"{key}={value}" for key, value in event["event"].items())
    return f"{event['timestamp']} {event['topic']} {fields}".rstrip()


def to_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Columns wide enough for what is in them; None is a dash."""
    lines = [[column.upper() for column in columns]]
    lines += [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return str(value)


def _bytes(count: int) -> str:
    value = float(count)
    for unit in _UNITS[:-1]:
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def _unpack(type_url: str, value: bytes) -> Message:
    """The message in an Any; containerd's type URLs are bare names."""
    name = type_url.rpartition("/")[2]
    for module in (cgroups_v1_pb2, cgroups_v2_pb2, task_events_pb2):
        for kind in module.DESCRIPTOR.message_types_by_name.values():
            if kind.full_name == name:
                message: Message = getattr(module, kind.name).FromString(value)
                return message
    raise StatusError(f"the agent sent a {type_url!r}, which is unknown here")
