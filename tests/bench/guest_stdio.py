"""Standard streams out of a microVM: MB/s, and the processor time of PID 1 for each MB.

The yardstick copies the same pipe to a vsock port of its own, without the agent in between. It is
Python because nothing else in the guest speaks vsock; `cat` does no more either.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kuasar_agent.api import task_pb2
from kuasar_agent.ttrpc import dial
from kuasar_host.microvm import MicroVM
from tests.bench.table import show
from tests.support.guest import Guest, config
from tests.support.streams import grant, next_data, open_stream, url
from tests.support.timeouts import GUEST

SIZE = 64 << 20
BLOCK = 64 * 1024
PORT, OWN_PORT = 42000, 42001
_WRITER = f"dd if=/dev/zero bs={BLOCK} count={SIZE // BLOCK}"
_COPIER = f"""
import os, socket
listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
listener.bind((0xFFFFFFFF, {OWN_PORT}))
listener.listen(1)
print("listening", flush=True)
peer, _ = listener.accept()
while data := os.read(0, 131072):
    peer.sendall(data)
"""

Take = Callable[[], int]


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="kuasar-") as scratch,
        MicroVM.boot(config(Path(scratch))) as vm,
    ):
        guest = Guest(vm)
        plain, _ = _plain(guest)
        rows: list[list[str | float]] = [["without the agent", plain, "", ""]]
        for name, measure in (("vsock port", _port), ("Streaming service", _streaming)):
            speed, cost = measure(guest)
            rows.append([name, speed, f"{100 * speed / plain:.0f} %", f"{cost:.1f}"])
        title = f"Standard output of a container in a microVM ({vm.accelerator.name}), "
        title += f"{SIZE >> 20} MiB in writes of {BLOCK >> 10} KiB"
        show(title, ("", "MB/s", "share", "CPU of PID 1, ms per MB"), rows)


def _plain(guest: Guest) -> tuple[float, float]:
    command = ["sh", "-c", f'{_WRITER} 2>/dev/null | python3.11 -S -c "$0"', _COPIER]
    with (
        _running(guest, command, f"vsock://3:{PORT}") as cost,
        dial(guest.vm.address(PORT), GUEST) as said,
    ):
        assert said.recv(100) == b"listening\n"
        with dial(guest.vm.address(OWN_PORT), GUEST) as peer:
            speed = _timed(lambda: len(peer.recv(1 << 18)))
    return speed, cost()


def _port(guest: Guest) -> tuple[float, float]:
    with (
        _running(guest, ["sh", "-c", _WRITER], f"vsock://3:{PORT}") as cost,
        dial(guest.vm.address(PORT), GUEST) as peer,
    ):
        speed = _timed(lambda: len(peer.recv(1 << 18)))
    return speed, cost()


def _streaming(guest: Guest) -> tuple[float, float]:
    stream = open_stream(guest.client, "bench-stdout")
    grant(stream, 2 * SIZE)
    with _running(guest, ["sh", "-c", _WRITER], url("bench-stdout")) as cost:
        speed = _timed(lambda: len(next_data(stream) or b""))
    return speed, cost()


@contextmanager
def _running(guest: Guest, command: list[str], stdout: str) -> Iterator[Callable[[], float]]:
    """A container that can use the guest's Python; gives what PID 1 used for each MB, in ms."""
    id = guest.bundle(command)
    file = guest.vm.shared / id / "config.json"
    spec = json.loads(file.read_text())
    for target, source in (("/usr", "/usr"), ("/lib64", "/usr/lib64")):
        entry = {"destination": target, "source": source, "type": "bind"}
        spec["mounts"].append({**entry, "options": ["rbind", "ro"]})
    spec["process"]["env"] = ["PATH=/bin:/usr/bin"]
    file.write_text(json.dumps(spec))
    before, used = _cpu(guest), 0.0
    guest.task.create(task_pb2.CreateTaskRequest(id=id, stdout=stdout), timeout=GUEST)
    guest.task.start(task_pb2.StartRequest(id=id), timeout=GUEST)
    yield lambda: used
    guest.task.wait(task_pb2.WaitRequest(id=id), timeout=GUEST)
    guest.task.delete(task_pb2.DeleteRequest(id=id), timeout=GUEST)
    used = (_cpu(guest) - before) / (SIZE / 1e6) * 1e3


def _timed(read: Take) -> float:
    """MB/s from the first bytes to the end."""
    size, began = read(), time.monotonic()
    while count := read():
        size += count
    assert size == SIZE, size
    return SIZE / 1e6 / (time.monotonic() - began)


def _cpu(guest: Guest) -> float:
    """Seconds of processor time that PID 1 has used; the clock ticks 100 times a second."""
    stat = guest.run("cat", "/proc/1/stat", guest_pids=True).stdout.decode()
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
