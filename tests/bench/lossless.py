"""Bytes lost: containers that write and exit at once, to a host that leaves when Wait returns.

The host is containerd's own Go code, which reads a stream of the Streaming service, a port or a
FIFO. `KUASAR_BENCH_CONTAINERS` says how many containers of each kind there are (1,000).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path

import click
from gevent.pool import Pool

from tests.bench.table import show
from tests.support.agent import Agent, running_agent
from tests.support.go_streams import VERSIONS, GoStreams, build, go_streams, result
from tests.support.streams import url

CONTAINERS = int(os.environ.get("KUASAR_BENCH_CONTAINERS", "1000"))
SIZE = 1 << 20
AT_ONCE = 4
PLACES = ("stream", "socket", "fifo")


def main() -> None:
    """Run every kind of transport with each version of ttrpc and print what was lost."""
    rows: list[list[str | float]] = []
    for version in VERSIONS:
        build(version)
        for place in PLACES:
            kind = f"{place}, ttrpc {version}"
            click.echo(f"{CONTAINERS} containers: {kind}", err=True)
            with (
                tempfile.TemporaryDirectory() as directory,
                running_agent(Path(directory), "crun") as agent,
                go_streams(version, agent.ports / "1024", Path(directory) / "go.log") as host,
            ):
                began = time.monotonic()
                lost, damaged = _lose(agent, host, place)
                seconds = time.monotonic() - began
            rows.append([kind, str(CONTAINERS), str(lost), str(damaged), seconds])
    title = f"Containers that write {SIZE >> 20} MiB and exit, {AT_ONCE} at once"
    show(title, ("", "containers", "bytes lost", "wrong hashes", "seconds"), rows)


def _lose(agent: Agent, host: GoStreams, place: str) -> tuple[int, int]:
    """Return the bytes that did not arrive, and the outputs that are not as written."""
    data = os.urandom(SIZE)
    wanted = hashlib.sha256(data).hexdigest()
    (agent.rootfs / "out").write_bytes(data)
    lost = damaged = 0

    def run(number: int) -> None:
        nonlocal lost, damaged
        output, order = _where(agent, place, number)
        id = agent.bundle("cat", "/out")
        agent.create(id, stdout=output)
        answer = result(host.begin(task=id, **order))
        lost += SIZE - answer.size
        damaged += answer.sha256 != wanted

    pool = Pool(AT_ONCE)
    for _ in pool.imap_unordered(run, range(CONTAINERS)):
        pass
    return lost, damaged


def _where(agent: Agent, place: str, number: int) -> tuple[str, dict[str, str]]:
    """Return the URL of an output, and how the host reads it."""
    if place == "stream":
        return url(f"{number}-stdout"), {"stream": f"{number}-stdout"}
    if place == "socket":
        port = agent.port()
        return f"vsock://3:{port}", {"socket": str(agent.ports / str(port))}
    path = str(agent.ports.parent / f"fifo-{number}")
    os.mkfifo(path)
    return path, {"fifo": path}
