"""The agent's answers about its containers, as rows to print."""

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
    task_events_pb2,
    task_pb2,
    task_types_pb2,
)
from kuasar_agent.ttrpc import Client, NotFound, StatusError
from kuasar_host.services import TASK

PS = ("container", "pid", "status", "exit", "processes")
STATS = ("container", "cpu", "memory", "limit", "pids", "oom")
TOP = ("container", "cpu%", "memory", "limit", "pids")

_NANO = 1e9
# Without a limit cgroup v1 has a page-aligned LONG_MAX, and v2 "max", which is sent as 2^64-1.
_NO_LIMIT = 1 << 62
_WITHIN = 10.0
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Usage(NamedTuple):
    """The resources that a container has used; memory in bytes."""

    container: str
    cpu_ns: int
    memory: int
    limit: int
    """0: no limit."""
    pids: int
    oom_kills: int
    at_ns: int
    """When these were read, on time.monotonic_ns()'s clock."""


def processes(client: Client, ids: Sequence[str], *, must_exist: bool) -> list[dict[str, Any]]:
    """Return a row for each container of `ids`, without those that the agent does not know.

    Raises:
        NotFound: the agent does not know one, and `must_exist` is set.
        StatusError: a call failed.
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
    """Yield the cgroup metrics of the containers of `ids` that run; else as `processes`."""
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
    """Return the numbers that both cgroup versions have."""
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
    """Return a row of `stats`."""
    return {
        **_memory(usage),
        "cpu": f"{usage.cpu_ns / _NANO:.2f} s",
        "oom": usage.oom_kills,
    }


def top_row(usage: Usage, before: Usage | None) -> dict[str, Any]:
    """Return a row of `top`; `before` is an earlier usage of the same container."""
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
    """Return an event with its message as a dictionary."""
    message = _unpack(envelope.event.type_url, envelope.event.value)
    return {
        "timestamp": envelope.timestamp.ToJsonString(),
        "namespace": envelope.namespace,
        "topic": envelope.topic,
        "event": to_dict(message),
    }


def event_line(event: Mapping[str, Any]) -> str:
    """Return an event as one line."""
    given = {key: value for key, value in event["event"].items() if value not in (None, "", [])}
    fields = " ".join(f"{key}={value}" for key, value in given.items())
    return f"{event['timestamp']} {event['topic']} {fields}".rstrip()


def to_dict(message: Message) -> dict[str, Any]:
    """Return a message as a dictionary with all its fields, those that are zero too.

    Numbers are numbers: protobuf's own JSON has strings for those of 64 bits.
    """
    if message.DESCRIPTOR.file.package == "google.protobuf":
        return MessageToDict(message)
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        return [_single(item, field) for item in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _single(value, field)


def _single(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return to_dict(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows under their titles; None is shown as a dash."""
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
    """Return the message in an Any; containerd's type URLs are names without a prefix."""
    name = type_url.rpartition("/")[2]
    for module in (cgroups_v1_pb2, cgroups_v2_pb2, task_events_pb2):
        for kind in module.DESCRIPTOR.message_types_by_name.values():
            if kind.full_name == name:
                message: Message = getattr(module, kind.name).FromString(value)
                return message
    raise StatusError(f"the agent sent a {type_url!r}, which is unknown here")
