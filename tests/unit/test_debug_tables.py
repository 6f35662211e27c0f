"""What kuasar-debug makes of the agent's answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import subprocess as gsubprocess
from google.protobuf.any_pb2 import Any as AnyMessage
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
from kuasar_agent.ttrpc import NotFound, Server, listen
from kuasar_debug.logs import to_json, wanted
from kuasar_debug.tables import TOP, table, top_row, usage
from tests.support.command_line import kuasar_debug
from tests.support.timeouts import TIMEOUT

MIB = 1 << 20


def packed(message: Message) -> AnyMessage:
    name = message.DESCRIPTOR.full_name
    return AnyMessage(type_url=name, value=message.SerializeToString())


def v1() -> cgroups_v1_pb2.Metrics:
    metrics = cgroups_v1_pb2.Metrics()
    metrics.cpu.usage.total = 1_500_000_000
    metrics.memory.usage.usage = 3 * MIB
    metrics.memory.usage.limit = 0x7FFF_FFFF_FFFF_F000
    metrics.pids.current = 2
    return metrics


def v2() -> cgroups_v2_pb2.Metrics:
    metrics = cgroups_v2_pb2.Metrics()
    metrics.cpu.usage_usec = 1_500_000
    metrics.memory.usage = 3 * MIB
    metrics.memory.usage_limit = 64 * MIB
    metrics.memory_events.oom_kill = 1
    metrics.pids.current = 2
    return metrics


class Tasks:
    """Two containers: `one` runs, `two` has ended."""

    def state(self, _: object, request: task_pb2.StateRequest) -> task_pb2.StateResponse:
        if request.id == "one":
            return task_pb2.StateResponse(id="one", pid=11, status=task_types_pb2.RUNNING)
        if request.id == "two":
            stopped = task_types_pb2.STOPPED
            return task_pb2.StateResponse(id="two", pid=22, status=stopped, exit_status=7)
        raise NotFound(f"container {request.id} not found")

    def pids(self, _: object, request: task_pb2.PidsRequest) -> task_pb2.PidsResponse:
        found = [task_types_pb2.ProcessInfo(pid=pid) for pid in (11, 12)]
        return task_pb2.PidsResponse(processes=found)

    def stats(self, _: object, request: task_pb2.StatsRequest) -> task_pb2.StatsResponse:
        return task_pb2.StatsResponse(stats=packed(v2()))


class Events:
    def get_events(self, _: object, request: object) -> events_pb2.Envelope:
        event = packed(task_events_pb2.TaskOOM(container_id="one"))
        return events_pb2.Envelope(namespace="k8s.io", topic="/tasks/oom", event=event)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    server = Server()
    server.register(task_pb2.DESCRIPTOR.services_by_name["Task"], Tasks(), partial=True)
    sandbox = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]
    server.register(sandbox, Events(), partial=True)
    server.start(listen(f"unix://{tmp_path}/1024"))
    yield f"unix://{tmp_path}"
    server.close()


def run(address: str, *args: str) -> subprocess.CompletedProcess[str]:
    name, *rest = args
    return kuasar_debug(name, "--address", address, *rest)


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_ps_shows_processes_of_what_runs_and_the_status_of_what_ended(address: str) -> None:
    assert run(address, "ps", "one", "two").stdout.splitlines() == [
        "CONTAINER  PID  STATUS   EXIT  PROCESSES",
        "one        11   running  -     11 12",
        "two        22   stopped  7     -",
    ]
    assert documents(run(address, "ps", "--json", "one").stdout) == [
        {"container": "one", "pid": 11, "status": "running", "exit": None, "processes": [11, 12]}
    ]


def test_a_container_that_was_named_must_exist(address: str) -> None:
    done = run(address, "ps", "three")
    assert done.returncode == 1
    assert done.stderr == "Error: not found: container three not found\n"


def test_stats_leaves_out_what_ended(address: str) -> None:
    assert run(address, "stats", "one", "two").stdout.splitlines() == [
        "CONTAINER  CPU     MEMORY   LIMIT     PIDS  OOM",
        "one        1.50 s  3.0 MiB  64.0 MiB  2     1",
    ]
    (shown,) = documents(run(address, "stats", "--json", "one").stdout)
    assert shown["container"] == "one"
    assert shown["pids"] == {"current": 2, "limit": 0}
    assert shown["memory"]["usage_limit"] == 64 * MIB


def test_top_shows_the_share_of_the_cpu_since_the_last_time(address: str) -> None:
    lines = run(address, "top", "--count", "2", "--interval", "0.05", "one").stdout.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("one")] == [
        ["one", "-"],
        ["one", "0.0"],
    ]


def test_events_are_printed_one_per_line(address: str) -> None:
    (line,) = run(address, "events", "--count", "1").stdout.splitlines()
    assert line.endswith("/tasks/oom container_id=one")
    shown = documents(run(address, "events", "--count", "2", "--json").stdout)
    assert [event["event"] for event in shown] == [{"container_id": "one"}] * 2


@pytest.mark.parametrize("command", [("ps", "one"), ("stats", "one"), ("top", "one"), ("events",)])
def test_what_the_agent_does_not_offer_is_one_clear_line(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    server = Server()
    server.start(listen(f"unix://{tmp_path}/1024"))
    done = run(f"unix://{tmp_path}", *command)
    server.close()
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the agent does not offer this: ")
    assert done.stderr.count("\n") == 1


def test_a_shell_of_an_agent_without_sessions_is_a_plain_connection(tmp_path: Path) -> None:
    # As Kuasar's own agent: whatever comes first is typed, and a terminal echoes it.
    listener = listen(f"unix://{tmp_path}/1025")

    def serve() -> None:
        first, _ = listener.accept()
        first.sendall(first.recv(4096).replace(b"\n", b"\r\n"))
        second, _ = listener.accept()
        second.sendall(b"got " + second.recv(4096))
        second.close()

    server = gevent.spawn(serve)
    # The server runs in this process: only gevent's Popen may wait.
    process = gsubprocess.Popen(
        [sys.executable, "-m", "kuasar_debug", "shell", "--address", f"unix://{tmp_path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with gevent.Timeout(TIMEOUT):
        stdout, stderr = process.communicate("typed\n")
    server.kill()
    listener.close()
    assert (process.returncode, stdout, stderr) == (0, "got typed\n", "")


@pytest.mark.parametrize(("metrics", "limit"), [(v1(), 0), (v2(), 64 * MIB)])
def test_both_cgroup_versions_give_the_same_numbers(metrics: Message, limit: int) -> None:
    used = usage("c", metrics)
    assert (used.cpu_ns, used.memory, used.limit, used.pids) == (1_500_000_000, 3 * MIB, limit, 2)


def test_a_share_is_that_of_one_cpu() -> None:
    before = usage("c", v2())
    after = before._replace(cpu_ns=before.cpu_ns + 500, at_ns=before.at_ns + 1000)
    assert top_row(after, before)["cpu%"] == "50.0"
    assert "50.0" in table(TOP, [top_row(after, before)])


def test_lines_of_the_agent_can_be_told_from_the_kernels() -> None:
    agent = 'ts=1.5 level=warn msg="a b" src=x'
    kernel = "[    0.5] Linux version"
    assert json.loads(to_json(agent)) == {"ts": "1.5", "level": "warn", "msg": "a b", "src": "x"}
    assert json.loads(to_json(kernel)) == {"text": kernel}
    assert wanted(kernel, None)
    assert not wanted(kernel, "debug")
    assert wanted(agent, "info")
    assert not wanted(agent, "error")
