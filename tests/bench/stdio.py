"""Standard streams: MB/s and CPU per MB on each transport, and the latency of a line.

On the host, where a port of the guest is a unix socket. The yardstick is `cat` in the agent's
place: from the writer's pipe to the same socket or FIFO.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gevent.socket import SHUT_WR, socketpair
from google.protobuf.message import Message

from kuasar_agent.api.streaming_pb2 import StreamInit
from kuasar_agent.api.transfer_pb2 import WindowUpdate
from kuasar_agent.ttrpc.client_core import ClientCore
from kuasar_agent.ttrpc.frames import DATA, NO_DATA, REMOTE_CLOSED, encode
from kuasar_agent.ttrpc.service import method_of
from tests.bench.table import show
from tests.support.agent import Agent, running_agent
from tests.support.streams import METHOD, acknowledge, grant, next_data, open_stream, pack, url

SIZE = 256 << 20
BLOCKS = (64 * 1024, 4096)
ROUNDS = 5
LINES = 500
_READ = 1 << 18
_TICKS = os.sysconf("SC_CLK_TCK")

Take = Callable[[], int]
Measured = tuple[float, float]
"""MB/s, and milliseconds of processor time for each MB."""


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        running_agent(Path(directory), "crun") as agent,
    ):
        rows: list[list[str | float]] = []
        for name, measure, yardstick in (
            ("vsock port", _port, _cat_to_socket),
            ("FIFO", _fifo, _cat_to_fifo),
            ("Streaming service", _streaming, _cat_to_socket),
            ("the same, a Python client", _streaming_decoded, _cat_to_socket),
        ):
            for block in BLOCKS:
                # In turns, so that what else the machine does weighs on both alike.
                pairs = [(measure(agent, block), yardstick(agent, block)) for _ in range(ROUNDS)]
                speed, cost = _medians([ours for ours, _ in pairs])
                cat_speed, cat_cost = _medians([cats for _, cats in pairs])
                text = f"{name}, writes of {block >> 10} KiB"
                share = f"{100 * speed / cat_speed:.0f} %"
                rows.append([text, speed, cat_speed, share, f"{cost:.2f}", f"{cat_cost:.2f}"])
        speed, cost = _medians([_input(agent) for _ in range(ROUNDS)])
        rows.append(["input, vsock port", speed, "", "", f"{cost:.2f}", ""])
        title = f"Standard streams on the host, {SIZE >> 20} MiB, medians of {ROUNDS}"
        header = ("", "MB/s", "cat", "share", "CPU, ms per MB", "cat's")
        show(title, header, rows)
        p50, p99 = _latency(agent)
        show("One line, echoed by a container", ("", "p50 ms", "p99 ms"), [["there", p50, p99]])


def _medians(column: Sequence[Measured]) -> Measured:
    return (
        statistics.median(speed for speed, _ in column),
        statistics.median(cost for _, cost in column),
    )


def _cat_to_socket(agent: Agent, block: int) -> Measured:
    ours, theirs = socketpair()
    os.set_blocking(theirs.fileno(), True)
    with ours, _Cat(block, theirs.fileno()) as cat:
        theirs.close()
        speed = _timed(lambda: len(ours.recv(_READ)))
    return speed, cat.cost


def _cat_to_fifo(agent: Agent, block: int) -> Measured:
    with _new_fifo(agent) as path:
        # Both ways, or the opening waits for the other side.
        both = os.open(path, os.O_RDWR)
        with path.open("rb", buffering=0) as file, _Cat(block, both) as cat:
            os.close(both)
            speed = _timed(lambda: len(file.read(_READ)))
    return speed, cat.cost


class _Cat:
    """`dd | cat` towards a descriptor, for the time of a `with` block."""

    def __init__(self, block: int, target: int) -> None:
        command = ["dd", "if=/dev/zero", f"bs={block}", f"count={SIZE // block}", "status=none"]
        self.cost = 0.0
        self._dd = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._cat = subprocess.Popen(["cat"], stdin=self._dd.stdout, stdout=target)

    def __enter__(self) -> _Cat:
        assert self._dd.stdout is not None
        self._dd.stdout.close()
        return self

    def __exit__(self, *error: object) -> None:
        self._dd.wait()
        _, status, usage = os.wait4(self._cat.pid, 0)
        self._cat.returncode = status
        self.cost = (usage.ru_utime + usage.ru_stime) / (SIZE / 1e6) * 1e3


@contextmanager
def _new_fifo(agent: Agent) -> Iterator[Path]:
    path = agent.ports.parent / "fifo"
    os.mkfifo(path)
    yield path
    path.unlink()


def _port(agent: Agent, block: int) -> Measured:
    port = agent.port()
    with _Writing(agent, f"vsock://3:{port}", block) as writing, agent.dial(port) as peer:
        speed = _timed(lambda: len(peer.recv(_READ)))
    return speed, writing.cost


def _fifo(agent: Agent, block: int) -> Measured:
    with _new_fifo(agent) as path:
        writing = _Writing(agent, str(path), block)
        with writing, path.open("rb", buffering=0) as file:
            speed = _timed(lambda: len(file.read(_READ)))
    return speed, writing.cost


def _streaming(agent: Agent, block: int) -> Measured:
    """To a reader that takes no frame apart, as `cat`'s; everything is granted at once."""
    core = ClientCore()
    method = method_of(METHOD)
    stream = core.open(method, method.prefix)
    with agent.dial(1024) as peer:

        def send(message: Message) -> None:
            core.send(stream, pack(message).SerializeToString())
            peer.sendall(core.outbox.take())

        send(StreamInit(id="bench-stdout"))
        peer.recv(_READ)
        send(WindowUpdate(update=1 << 30))
        end = encode(stream.id, DATA, REMOTE_CLOSED | NO_DATA, b"")
        ended = False

        def read() -> int:
            nonlocal ended
            data = b"" if ended else peer.recv(_READ)
            ended = data.endswith(end)
            if ended:
                # Ours is the same frame, and says that all was read.
                peer.sendall(end)
            return len(data)

        with _Writing(agent, url("bench-stdout"), block) as writing:
            speed = _timed(read)
    return speed, writing.cost


def _streaming_decoded(agent: Agent, block: int) -> Measured:
    with agent.connect() as client:
        stream = open_stream(client, "bench-stdout")
        grant(stream, 1 << 30)
        with _Writing(agent, url("bench-stdout"), block) as writing:
            speed = _timed(lambda: len(next_data(stream) or b""))
            acknowledge(stream)
    return speed, writing.cost


def _input(agent: Agent) -> Measured:
    port, before = agent.port(), _cpu(agent)
    id = agent.run("dd", f"bs={BLOCKS[0]}", "of=/dev/null", stdin=f"vsock://3:{port}")
    block = bytes(BLOCKS[0])
    with agent.dial(port) as writer:
        began = time.monotonic()
        for _ in range(SIZE // len(block)):
            writer.sendall(block)
        writer.shutdown(SHUT_WR)
        agent.wait(id)
        speed = SIZE / 1e6 / (time.monotonic() - began)
    agent.delete(id)
    return speed, (_cpu(agent) - before) / (SIZE / 1e6) * 1e3


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
        self.cost = 0.0
        """Milliseconds of the agent's processor time for each MB."""
        self._agent = agent
        command = ("dd", "if=/dev/zero", f"bs={block}", f"count={SIZE // block}")
        self._before = _cpu(agent)
        self._id = agent.run(*command, stdout=place)

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self._agent.wait(self._id)
        self._agent.delete(self._id)
        self.cost = (_cpu(self._agent) - self._before) / (SIZE / 1e6) * 1e3


def _timed(read: Take) -> float:
    """MB/s from the first bytes to the end."""
    size, began = read(), time.monotonic()
    while count := read():
        size += count
    # Frames have headers.
    assert SIZE <= size < SIZE * 1.01
    return SIZE / 1e6 / (time.monotonic() - began)


def _cpu(agent: Agent) -> float:
    """Seconds of processor time that the agent has used."""
    fields = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
