"""An agent as an ordinary process on this host, with a real runtime."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import gevent

from kuasar_agent.api import sandbox_pb2, task_pb2
from kuasar_agent.containers.runtime import DEFAULT_ROOT, NAMESPACE
from kuasar_agent.ttrpc import connect, dial
from kuasar_debug.bundle import make_bundle

TASK = task_pb2.DESCRIPTOR.services_by_name["Task"]
SANDBOX = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]
HANGS_AFTER = 60.0

# crun refuses a host whose cgroup v1 has a v2 hierarchy beside it.
_PREPARE = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'


class Result(NamedTuple):
    status: int
    stdout: bytes
    stderr: bytes


class HostAgent:
    """The agent, its runtime, and the containers that a test asks it for."""

    def __init__(self, directory: Path, runtime: str) -> None:
        self.runtime = runtime
        self.state, self.ports = directory / "state", directory / "ports"
        self.state.mkdir()
        command = [sys.executable, "-m", "kuasar_agent.cli", "serve", "--runtime", runtime]
        command += ["--state", str(self.state), "--ports", str(self.ports)]
        isolate = ["unshare", "-m", "--propagation", "private", "sh", "-c", _PREPARE, "sh"]
        self.process = subprocess.Popen(
            [*isolate, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(b"serving"), "the agent ended before it served"
        self.client = connect(f"unix://{self.ports}/1024")
        self.task = self.client.stub(TASK)
        self.sandbox = self.client.stub(SANDBOX)
        self._count = 0

    def check(self) -> None:
        """Raises when the agent does not answer."""
        self.sandbox.check(sandbox_pb2.CheckRequest(), timeout=HANGS_AFTER)

    def bundle(self, *command: str) -> str:
        """The id of a new bundle; ids are new to the runtime of the whole host."""
        id = f"test-{uuid.uuid4().hex[:12]}"
        path = make_bundle(self.state, id, command)
        file = path / "config.json"
        spec = json.loads(file.read_text())
        # The least that runs: a test machine may not let a container mount more.
        spec["mounts"] = [mount for mount in spec["mounts"] if mount["destination"] == "/proc"]
        file.write_text(json.dumps(spec))
        return id

    def create(self, id: str, stdio: Sequence[str] = ("", "", "")) -> int:
        request = task_pb2.CreateTaskRequest(
            id=id, stdin=stdio[0], stdout=stdio[1], stderr=stdio[2]
        )
        return int(self.task.create(request, timeout=HANGS_AFTER).pid)

    def start(self, id: str) -> None:
        self.task.start(task_pb2.StartRequest(id=id), timeout=HANGS_AFTER)

    def wait(self, id: str) -> int:
        return int(self.task.wait(task_pb2.WaitRequest(id=id), timeout=HANGS_AFTER).exit_status)

    def status(self, id: str) -> int:
        return int(self.task.state(task_pb2.StateRequest(id=id), timeout=HANGS_AFTER).status)

    def kill(self, id: str, signal: int) -> None:
        self.task.kill(task_pb2.KillRequest(id=id, signal=signal), timeout=HANGS_AFTER)

    def delete(self, id: str) -> task_pb2.DeleteResponse:
        reply: task_pb2.DeleteResponse = self.task.delete(
            task_pb2.DeleteRequest(id=id), timeout=HANGS_AFTER
        )
        return reply

    def run(self, *command: str, stdin: bytes | None = None) -> Result:
        """A container from Create to Delete, with what it wrote."""
        id = self.bundle(*command)
        first = 20000 + 3 * self._count
        self._count += 1
        urls = [f"vsock://3:{port}" for port in range(first, first + 3)]
        self.create(id, [urls[0] if stdin is not None else "", *urls[1:]])
        readers = [gevent.spawn(self.read, port) for port in (first + 1, first + 2)]
        if stdin is not None:
            self.write(first, stdin)
        self.start(id)
        status = self.wait(id)
        stdout, stderr = (reader.get(timeout=HANGS_AFTER) for reader in readers)
        self.delete(id)
        return Result(status, stdout, stderr)

    def read(self, port: int) -> bytes:
        chunks = []
        with dial(f"unix://{self.ports}/{port}", HANGS_AFTER) as peer:
            while data := peer.recv(65536):
                chunks.append(data)
        return b"".join(chunks)

    def write(self, port: int, data: bytes) -> None:
        def send() -> None:
            with dial(f"unix://{self.ports}/{port}", HANGS_AFTER) as peer:
                peer.sendall(data)

        gevent.spawn(send)

    def descriptors(self) -> int:
        """How many files the agent has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def children(self) -> list[str]:
        """Pids of the agent's children, zombies included."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]

    def known_to_runtime(self, id: str) -> bool:
        return Path(DEFAULT_ROOT, NAMESPACE, id).exists()

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def running_agent(directory: Path, runtime: str) -> Iterator[HostAgent]:
    """An agent for a block, which must leave no child behind."""
    agent = HostAgent(directory, runtime)
    try:
        yield agent
        assert agent.children() == []
    finally:
        agent.close()
