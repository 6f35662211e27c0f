"""ttrpc beside Go's (Debian's 1.1.1): every client drives every server, in turns in one run.

Go's has no streams; those are between two processes of ours.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import gevent
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from kuasar_agent.ttrpc import Client, connect
from tests.bench.table import show
from tests.support.go_build import go_program
from tests.support.ttrpc.echo import SERVICE
from tests.support.ttrpc_servers import running_go_server, running_server

IN_FLIGHT = (1, 64, 1024)
ROUNDS = 5
SECONDS = 0.5
"""Of each measurement in each round."""
OUR_SERVER = (sys.executable, "-m", "tests.bench.ttrpc_server")
MESSAGE = "sixteen bytes of"
SIZES = (4 << 10, 32 << 10, 64 << 10)
STREAMED = 256 << 20
"""Bytes a measurement of a stream."""
IDLE = 1000


class Measure(NamedTuple):
    """Calls a second, and microseconds a call."""

    rate: float
    p50: float
    p99: float


Drive = Callable[[Path, int], Measure]


class Server(NamedTuple):
    """A serving process."""

    path: Path
    pid: int


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        ours, theirs = Path(directory) / "ours", Path(directory) / "go"
        servers = {
            "our": Server(ours, stack.enter_context(running_server(OUR_SERVER, ours)).pid),
            "Go": Server(theirs, stack.enter_context(running_go_server(theirs)).pid),
        }
        _calls(servers)
        _streams(servers["our"])
        _memory(servers)


def _calls(servers: dict[str, Server]) -> None:
    drivers: dict[str, Drive] = {"Go": _drive_go, "our": _drive_ours}
    cases = [
        (in_flight, client, server)
        for in_flight in IN_FLIGHT
        for client in drivers
        for server in servers
    ]
    found: dict[tuple[int, str, str], list[Measure]] = {case: [] for case in cases}
    # In turns, so that what else the machine does hits all alike.
    for _ in range(ROUNDS):
        for case in cases:
            in_flight, client, server = case
            found[case].append(drivers[client](servers[server].path, in_flight))
    rows: list[list[str | float]] = []
    for (in_flight, client, server), measures in found.items():
        rate, p50, p99 = (statistics.median(column) for column in zip(*measures, strict=True))
        name = f"{in_flight} in flight, {client} client, {server} server"
        rows.append([name, f"{rate:.0f}", f"{p50:.0f}", f"{p99:.0f}"])
    title = f"Echo of {len(MESSAGE)} bytes on one connection (unix socket), medians of {ROUNDS}"
    show(title, ("", "calls/s", "p50 µs", "p99 µs"), rows)


def _drive_go(path: Path, in_flight: int) -> Measure:
    command = [str(go_program("client")), "bench", str(path), str(SECONDS), str(in_flight)]
    line = json.loads(subprocess.check_output(command))
    return Measure(line["rate"], line["p50"], line["p99"])


def _drive_ours(path: Path, in_flight: int) -> Measure:
    with connect(f"unix://{path}") as client:
        echo = client.stub(SERVICE).echo
        times: list[float] = []
        started = perf_counter()
        end = started + SECONDS

        def caller() -> None:
            request = StringValue(value=MESSAGE)
            before = perf_counter()
            while before < end:
                echo(request)
                after = perf_counter()
                times.append(after - before)
                before = after

        gevent.joinall([gevent.spawn(caller) for _ in range(in_flight)], raise_error=True)
        elapsed = perf_counter() - started
    percentiles = statistics.quantiles(times, n=100)
    return Measure(len(times) / elapsed, percentiles[49] * 1e6, percentiles[98] * 1e6)


def _streams(server: Server) -> None:
    rows: list[list[str | float]] = []
    ways = {"from the server": _receive, "to the server": _send}
    with connect(f"unix://{server.path}") as client:
        for size in SIZES:
            for name, way in ways.items():
                speeds = [way(client, size) for _ in range(3)]
                rows.append([f"messages of {size >> 10} KiB {name}", statistics.median(speeds)])
    title = f"One stream between two processes (unix socket), {STREAMED >> 20} MiB, medians of 3"
    show(title, ("", "MB/s"), rows)


def _receive(client: Client, size: int) -> float:
    amount = STREAMED // size
    began = perf_counter()
    stream = client.stub(SERVICE).blobs(Int64Value(value=amount << 32 | size))
    received = sum(len(message.value) for message in stream)
    assert received == STREAMED
    return STREAMED / 1e6 / (perf_counter() - began)


def _send(client: Client, size: int) -> float:
    message = BytesValue(value=bytes(size))
    began = perf_counter()
    stream = client.stub(SERVICE).swallow()
    for _ in range(STREAMED // size):
        stream.send(message)
    assert stream.close_and_recv().value == STREAMED
    return STREAMED / 1e6 / (perf_counter() - began)


def _memory(servers: dict[str, Server]) -> None:
    rows: list[list[str | float]] = [
        [f"idle connection, {name} server", _per_connection(server)]
        for name, server in servers.items()
    ]
    rows.append(["idle stream, our server", _per_stream(servers["our"])])
    show(f"Memory of the server, KiB each (PSS, {IDLE} of them)", ("", "KiB"), rows)


def _per_connection(server: Server) -> float:
    with ExitStack() as stack:
        _call(stack.enter_context(connect(f"unix://{server.path}")))
        before = _pss(server.pid)
        for _ in range(IDLE):
            _call(stack.enter_context(connect(f"unix://{server.path}")))
        return (_pss(server.pid) - before) / IDLE


def _per_stream(server: Server) -> float:
    with connect(f"unix://{server.path}") as client:
        stub = client.stub(SERVICE)
        _call(client)
        before = _pss(server.pid)
        streams = [stub.idle() for _ in range(IDLE)]
        _call(client)
        used = (_pss(server.pid) - before) / IDLE
        for stream in streams:
            stream.close_send()
        return used


def _call(client: Client) -> None:
    client.stub(SERVICE).echo(StringValue(value=MESSAGE))


def _pss(pid: int) -> float:
    """KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return float(value.split()[0])
    raise ValueError(f"no Pss of {pid}")


if __name__ == "__main__":
    main()
