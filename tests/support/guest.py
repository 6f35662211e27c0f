"""Driving the guest in tests: run a container, see what it wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gevent
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import sandbox_pb2
from kuasar_agent.ttrpc import Client, dial
from kuasar_debug import images
from kuasar_host.bundle import make_bundle
from kuasar_host.config import Config, Disk
from kuasar_host.microvm import MicroVM
from kuasar_host.services import AGENT as AGENT
from kuasar_host.services import SANDBOX as SANDBOX
from kuasar_host.services import TASK as TASK
from tests.support.tasks import Tasks
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

IMAGE = images.directory()
"""The built image, or that of KUASAR_IMAGE."""
_DISK_SIZE = 16 << 20


def config(directory: Path, **options: object) -> Config:
    """Return the configuration of a guest with IMAGE; options are those of Config."""
    defaults = {"kernel": IMAGE / "vmlinux", "initrd": [IMAGE / "kuasar.initrd"]}
    return Config(directory=directory, **{**defaults, **options})  # type: ignore[arg-type]


def disk(directory: Path) -> Disk:
    """Make a small empty disk, /dev/vda in the guest."""
    image = directory / "disk.raw"
    with image.open("wb") as file:
        file.truncate(_DISK_SIZE)
    return Disk("vda", image)


class Result(NamedTuple):
    status: int
    stdout: bytes
    stderr: bytes


class Guest:
    """Containers of one microVM; every one gets ports and an id of its own."""

    def __init__(self, vm: MicroVM) -> None:
        self.vm = vm
        self.client: Client = vm.connect()
        self.task = self.client.stub(TASK)
        self.calls = Tasks(self.task)
        self.sandbox = self.client.stub(SANDBOX)
        self.observed = self.client.stub(AGENT)
        self._count = 0

    def check(self) -> None:
        """Raises when the agent does not answer."""
        self.sandbox.check(sandbox_pb2.CheckRequest(), timeout=10)

    def leaks(self) -> list[str]:
        """The agent's own report, a line for each thing."""
        found = self.observed.leaks(Empty(), timeout=TIMEOUT).leaks
        return [f"{leak.kind} {leak.what} {leak.detail}" for leak in found]

    def assert_no_leaks(self) -> None:
        """What is being given back has a moment to go."""
        left = eventually(self.leaks, lambda left: not left, within=TIMEOUT)
        assert not left, left

    def bundle(self, command: Sequence[str], *, guest_pids: bool = False) -> str:
        """The id of a new bundle; with `guest_pids` the container sees the guest's processes."""
        self._count += 1
        id = f"c{self._count}"
        path = make_bundle(self.vm.shared, id, command)
        if guest_pids:
            file = path / "config.json"
            spec = json.loads(file.read_text())
            namespaces = spec["linux"]["namespaces"]
            spec["linux"]["namespaces"] = [ns for ns in namespaces if ns["type"] != "pid"]
            file.write_text(json.dumps(spec))
        return id

    def run(self, *command: str, guest_pids: bool = False) -> Result:
        """Run a container to its end and delete it."""
        id = self.bundle(command, guest_pids=guest_pids)
        ports = 30000 + 2 * self._count, 30001 + 2 * self._count
        stdout, stderr = (f"vsock://3:{port}" for port in ports)
        self.calls.create(id, stdout=stdout, stderr=stderr)
        readers = [gevent.spawn(self._read, port) for port in ports]
        self.calls.start(id)
        status = self.calls.wait(id).exit_status
        written = [reader.get(timeout=TIMEOUT) for reader in readers]
        self.calls.delete(id)
        return Result(status, *written)

    def _read(self, port: int) -> bytes:
        chunks = []
        with dial(self.vm.address(port), TIMEOUT) as peer:
            while data := peer.recv(65536):
                chunks.append(data)
        return b"".join(chunks)
