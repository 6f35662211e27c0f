"""The agent as a process of the host: the guest's port N is the unix socket `<ports>/N`."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gevent.socket import SHUT_WR, socket
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import runc_options_pb2
from kuasar_agent.api.sandbox_pb2 import CheckRequest
from kuasar_agent.services import agent as observed
from kuasar_agent.services import sandbox, task
from kuasar_agent.ttrpc import Client, StatusError, Stub, connect, dial
from kuasar_host.bundle import make_busybox_rootfs, make_spec
from tests.support.processes import children_of, fd_targets
from tests.support.tasks import Tasks
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

# crun refuses v1 with a v2 tree next to it, which a host may have and a guest never has.
_ENTER = """
    # In a chroot `/` is no mount point.
    mount --make-rprivate / 2>/dev/null || mount --make-rprivate /sys
    umount /sys/fs/cgroup/unified 2>/dev/null
    exec "$@"
"""
_CGROUPS = Path("/sys/fs/cgroup")

_numbers = itertools.count()


class Agent:
    """A serving agent, a connection to it, and what a test needs around them."""

    def __init__(
        self, directory: Path, runtime: str, *options: str, own_network: bool = False
    ) -> None:
        """`options` are further ones of `kuasar-agent serve`.

        With `own_network` the agent may write kernel parameters of the network.
        """
        self.runtime = runtime
        self._own_network = own_network
        self._options = options
        self.state = directory / "state"
        self.ports = directory / "ports"
        self.rootfs = directory / "rootfs"
        self.runtime_root = directory / "runtime"
        self.cgroup = f"kuasar-test-{os.getpid()}-{next(_numbers)}"
        self.log = directory / "agent.log"
        self._ids = itertools.count()
        self._port = itertools.count(2000)
        self.state.mkdir()
        self.ports.mkdir()
        make_busybox_rootfs(self.rootfs)
        self._process = self._spawn()
        self.client = self.connect()
        self.tasks = self.client.stub(task.SERVICE)
        self._calls = Tasks(self.tasks)
        self.start = self._calls.start
        self.wait = self._calls.wait
        self.state_of = self._calls.state_of
        self.kill = self._calls.kill
        self.pids = self._calls.pids
        self.pause = self._calls.pause
        self.resume = self._calls.resume
        self.close_io = self._calls.close_io
        self.resize = self._calls.resize
        self.delete = self._calls.delete
        self._warm_up()
        self.fds = self.open_fds()
        """What the agent had open before the test began."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def connect(self) -> Client:
        """Another connection, once the agent listens."""

        def attempt() -> Client | None:
            assert self._process.poll() is None, self.log.read_text()
            with suppress(FileNotFoundError, ConnectionRefusedError):
                return connect(f"unix://{self.ports}/1024")
            return None

        client = eventually(attempt, bool)
        assert client is not None
        return client

    def stub_v3(self) -> Stub:
        return self.client.stub(task.SERVICE, name=task.V3_NAME)

    def check(self) -> None:
        self.client.stub(sandbox.SERVICE).check(CheckRequest(), timeout=TIMEOUT)

    def bundle(self, *command: str, id: str = "", own_pids: bool = True) -> str:
        """Write a bundle and return its id; all bundles share one root file system."""
        id = id or f"{self.cgroup}-{next(self._ids)}"
        spec = self.spec(id, command)
        if not own_pids:
            spec["linux"]["namespaces"].remove({"type": "pid"})
        path = self.state / id
        path.mkdir()
        (path / "config.json").write_text(json.dumps(spec))
        (path / f"storage-{id}").write_text("[]")
        return id

    def spec(self, id: str, command: Sequence[str]) -> dict[str, Any]:
        spec = make_spec(id, command)
        spec["root"]["path"] = str(self.rootfs)
        spec["linux"]["cgroupsPath"] = f"/{self.cgroup}/{id}"
        return spec

    def options(self, **options: Any) -> AnyMessage:
        """Runtime options that keep the runtime's records in a directory of the test's own."""
        message = runc_options_pb2.Options(root=str(self.runtime_root), **options)
        return AnyMessage(type_url="containerd.runc.v1.Options", value=message.SerializeToString())

    def create(self, id: str, **fields: Any) -> int:
        """Create a container and return its pid."""
        fields.setdefault("options", self.options())
        return self._calls.create(id, **fields)

    def add_exec(self, id: str, exec_id: str, *command: str, **fields: Any) -> None:
        """Add an exec; `process` replaces parts of its OCI Process."""
        process = self.spec(id, command)["process"] | fields.pop("process", {})
        self._calls.add_exec(id, exec_id, process, **fields)

    def exec(self, id: str, exec_id: str, *command: str, **fields: Any) -> int:
        """Add an exec and start it; returns its pid."""
        self.add_exec(id, exec_id, *command, **fields)
        return self.start(id, exec_id)

    def run(self, *command: str, own_pids: bool = True, **fields: Any) -> str:
        """Create and start a container; returns its id."""
        id = self.bundle(*command, own_pids=own_pids)
        self.create(id, **fields)
        self.start(id)
        return id

    def port(self) -> int:
        """A port of the guest that nobody used yet."""
        return next(self._port)

    def dial(self, port: int) -> socket:
        peer = dial(f"unix://{self.ports}/{port}", TIMEOUT)
        peer.settimeout(TIMEOUT)
        return peer

    def listening(self) -> set[int]:
        """The ports on which somebody accepts connections."""
        return {int(path.name) for path in self.ports.iterdir() if _accepts(path)}

    def containers(self) -> list[str]:
        """The ids that the OCI runtime knows."""
        root = self.runtime_root / "k8s.io"
        command = [self.runtime, "--root", str(root), "list", "--format", "json"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [entry["id"] for entry in json.loads(listed) or []]

    def children(self) -> list[str]:
        return children_of(self.pid)

    def cgroups(self) -> list[str]:
        """The cgroups of containers, in every hierarchy."""
        return [str(path) for top in self._cgroup_tops() for path in top.iterdir() if path.is_dir()]

    def open_fds(self) -> list[str]:
        return fd_targets(self.pid)

    def leaks(self) -> list[str]:
        """The agent's own report, a line for each thing."""
        about = self.client.stub(observed.SERVICE)
        found = about.leaks(Empty(), timeout=TIMEOUT).leaks
        return [f"{leak.kind} {leak.what} {leak.detail}" for leak in found]

    def assert_no_leaks(self) -> None:
        """What is being given back has a moment to go."""
        assert eventually(self.leaks, lambda left: not left) == []

    def assert_clean(self) -> None:
        """Nothing of any container is left, and the agent answers."""
        self.check()
        self.assert_no_leaks()
        assert self.containers() == []
        assert eventually(self.children, lambda left: not left) == []
        assert self.cgroups() == []
        assert eventually(self.listening, lambda ports: ports == {1024}) == {1024}
        assert eventually(self.open_fds, lambda fds: fds == self.fds) == self.fds
        assert "Traceback" not in self.log.read_text()

    def stop(self) -> None:
        """Kill the agent and remove what a failed test left behind."""
        with suppress(StatusError, OSError):
            for bundle in self.state.iterdir():
                with suppress(StatusError):
                    self.delete(bundle.name)
        self._process.kill()
        self._process.wait()
        self.client.close()
        for top in self._cgroup_tops():
            with suppress(OSError):
                top.rmdir()

    def _spawn(self) -> subprocess.Popen[bytes]:
        serve = [sys.executable, "-m", "kuasar_agent.cli", "serve", "--state", str(self.state)]
        serve += ["--ports", str(self.ports), "--runtime", self.runtime, *self._options]
        unshare = ["unshare", *(["-n"] if self._own_network else []), "-m"]
        command = [*unshare, "--propagation", "unchanged", "sh", "-c", _ENTER, "sh", *serve]
        with self.log.open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _warm_up(self) -> None:
        """Let the agent open what it keeps open: its thread pool needs descriptors."""
        self.check()
        with suppress(StatusError):
            self.create("no-such-bundle")

    def _cgroup_tops(self) -> list[Path]:
        return [*_CGROUPS.glob(self.cgroup), *_CGROUPS.glob(f"*/{self.cgroup}")]


@contextmanager
def running_agent(
    directory: Path, runtime: str, *options: str, own_network: bool = False
) -> Iterator[Agent]:
    """An agent that must have nothing left of its containers at the end."""
    agent = Agent(directory, runtime, *options, own_network=own_network)
    try:
        yield agent
        agent.assert_clean()
    except BaseException:
        print(agent.log.read_text(), file=sys.stderr)
        raise
    finally:
        agent.stop()


def read_all(peer: socket) -> bytes:
    """What the peer sends until it closes."""
    chunks = []
    while chunk := peer.recv(1 << 16):
        chunks.append(chunk)
    peer.close()
    return b"".join(chunks)


def send_all(peer: socket, data: bytes) -> None:
    """Send and say that nothing follows."""
    peer.sendall(data)
    peer.shutdown(SHUT_WR)


def _accepts(path: Path) -> bool:
    try:
        dial(f"unix://{path}", TIMEOUT).close()
    except ConnectionRefusedError:
        return False
    return True
