"""Standard streams: MB/s and CPU of the agent per MB on each transport, and the latency of a line.

On the host, where a port of the guest is a unix socket; `cat` writes to the same kind of socket
without an agent in between.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gevent.socket import AF_UNIX, SHUT_WR, socket

from tests.bench.table import show
from tests.host.agent import Agent, running_agent
from tests.host.streams import next_data, open_stream, url

SIZE = 256 << 20
BLOCK = 64 * 1024
LINES = 500
_TICKS = os.sysconf("SC_CLK_TCK")

Take = Callable[[], int]


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        running_agent(Path(directory), "crun") as agent,
    ):
        plain = _plain(agent)
        rows: list[list[str | float]] = [["cat without the agent", plain, "", ""]]
        for name, measure in (
            ("vsock port", _port),
            ("FIFO", _fifo),
            ("Streaming service", _streaming),
        ):
            for size in (BLOCK, 4096):
                before = _cpu(agent)
                speed = measure(agent, size)
                cost = (_cpu(agent) - before) / (SIZE / 1e6) * 1e3
                share = f"{100 * speed / plain:.0f} %"
                rows.append([f"{name}, writes of {size >> 10} KiB", speed, share, f"{cost:.2f}"])
        rows.append(["input, vsock port", _input(agent), "", ""])
        title = f"Standard streams on the host, {SIZE >> 20} MiB from one container"
        show(title, ("", "MB/s", "of cat", "agent's CPU, ms per MB"), rows)
        p50, p99 = _latency(agent)
        show("One line, echoed by a container", ("", "p50 ms", "p99 ms"), [["there", p50, p99]])


def _plain(agent: Agent) -> float:
    path = agent.ports.parent / "plain"
    listener = socket(AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    reader = socket(AF_UNIX)
    reader.connect(str(path))
    writer, _ = listener.accept()
    command = ["dd", "if=/dev/zero", f"bs={BLOCK}", f"count={SIZE // BLOCK}", "status=none"]
    os.set_blocking(writer.fileno(), True)
    with subprocess.Popen(command, stdout=writer.fileno()):
        writer.close()
        speed = _timed(lambda: len(reader.recv(1 << 18)))
    listener.close()
    reader.close()
    return speed


def _port(agent: Agent, block: int) -> float:
    port = agent.port()
    with _Writing(agent, f"vsock://3:{port}", block), agent.dial(port) as peer:
        return _timed(lambda: len(peer.recv(1 << 18)))


def _fifo(agent: Agent, block: int) -> float:
    path = agent.ports.parent / f"fifo-{block}"
    os.mkfifo(path)
    with _Writing(agent, str(path), block), path.open("rb", buffering=0) as file:
        return _timed(lambda: len(file.read(1 << 18)))


def _streaming(agent: Agent, block: int) -> float:
    stream = open_stream(agent.client, f"bench{block}-stdout")
    with _Writing(agent, url(f"bench{block}-stdout"), block):
        return _timed(lambda: len(next_data(stream) or b""))


def _input(agent: Agent) -> float:
    keys, screen = agent.port(), agent.port()
    id = agent.run("wc", "-c", stdin=f"vsock://3:{keys}", stdout=f"vsock://3:{screen}")
    block = bytes(BLOCK)
    with agent.dial(keys) as writer, agent.dial(screen) as reader:
        began = time.monotonic()
        for _ in range(SIZE // BLOCK):
            writer.sendall(block)
        writer.shutdown(SHUT_WR)
        assert int(reader.recv(100)) == SIZE
        speed = SIZE / 1e6 / (time.monotonic() - began)
    agent.wait(id)
    agent.delete(id)
    return speed


def _latency(agent: Agent) -> tuple[float, float]:
    keys, screen = agent.port(), agent.port()
    id = agent.run("cat", stdin=f"vsock://3:{keys}", stdout=f"vsock://3:{screen}")
    times = []
    with agent.dial(keys) as writer, agent.dial(screen) as reader:
        for _ in range(LINES):
            time.sleep(0.01)
            began = time.monotonic()
            writer.sendall(b"a line of text\n")
            reader.recv(100)
            times.append((time.monotonic() - began) * 1e3)
        writer.shutdown(SHUT_WR)
        reader.recv(1)
    agent.wait(id)
    agent.delete(id)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


class _Writing:
    """A container that writes `SIZE` zero bytes in blocks, deleted at the end."""

    def __init__(self, agent: Agent, place: str, block: int) -> None:
        self._agent = agent
        command = ("dd", "if=/dev/zero", f"bs={block}", f"count={SIZE // block}")
        self._id = agent.run(*command, stdout=place)

    def __enter__(self) -> None:
        """It runs already."""

    def __exit__(self, *_: object) -> None:
        self._agent.wait(self._id)
        self._agent.delete(self._id)


def _timed(read: Take) -> float:
    """MB/s from the first bytes to the end."""
    size, began = read(), time.monotonic()
    while count := read():
        size += count
    assert size == SIZE
    return SIZE / 1e6 / (time.monotonic() - began)


def _cpu(agent: Agent) -> float:
    """Seconds of processor time that the agent has used."""
    fields = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
