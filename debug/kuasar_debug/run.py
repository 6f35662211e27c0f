"""Run one container in a microVM, with its output on ours."""

from __future__ import annotations

import signal
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import gevent
from gevent.os import tp_read

from kuasar_agent.api import task_pb2
from kuasar_agent.ttrpc import StatusError, Stub, dial
from kuasar_debug.bundle import make_bundle
from kuasar_debug.microvm import MicroVM

_TASK = task_pb2.DESCRIPTOR.services_by_name["Task"]
_FIRST_PORT = 20001
_CONNECT_WITHIN = 10.0
_CHUNK = 65536


class Run:
    """One container's way through the microVM."""

    def __init__(self, vm: MicroVM) -> None:
        self.id = f"run-{uuid.uuid4().hex[:8]}"
        self.first_output_at: float | None = None
        self._vm = vm

    def run(self, command: Sequence[str], rootfs: Path | None = None) -> int:
        """The container's exit status. Raises StatusError when the agent refuses something."""
        make_bundle(self._vm.shared, self.id, command, rootfs)
        with self._vm.connect() as client:
            task = client.stub(_TASK)
            ports = range(_FIRST_PORT, _FIRST_PORT + 3)
            stdin, stdout, stderr = (f"vsock://3:{port}" for port in ports)
            if sys.stdin.isatty():
                stdin = ""
            task.create(
                task_pb2.CreateTaskRequest(id=self.id, stdin=stdin, stdout=stdout, stderr=stderr)
            )
            try:
                return self._run_created(task, ports, feed=bool(stdin))
            finally:
                task.delete(task_pb2.DeleteRequest(id=self.id))

    def _run_created(self, task: Stub, ports: range, *, feed: bool) -> int:
        outputs = [
            gevent.spawn(self._print, ports[1], sys.stdout.buffer),
            gevent.spawn(self._print, ports[2], sys.stderr.buffer),
        ]
        feeder = gevent.spawn(self._feed, ports[0]) if feed else None
        interrupt = gevent.signal_handler(signal.SIGINT, self._kill, task)
        try:
            task.start(task_pb2.StartRequest(id=self.id))
            exit = task.wait(task_pb2.WaitRequest(id=self.id))
        finally:
            interrupt.cancel()
        gevent.joinall(outputs, timeout=_CONNECT_WITHIN)
        if feeder is not None:
            feeder.kill(block=False)
        return int(exit.exit_status)

    def _print(self, port: int, target: IO[bytes]) -> None:
        with dial(self._vm.address(port), _CONNECT_WITHIN) as peer:
            while data := peer.recv(_CHUNK):
                if self.first_output_at is None:
                    self.first_output_at = time.monotonic()
                target.write(data)
                target.flush()

    def _feed(self, port: int) -> None:
        with dial(self._vm.address(port), _CONNECT_WITHIN) as peer:
            try:
                while data := tp_read(sys.stdin.fileno(), _CHUNK):
                    peer.sendall(data)
            except OSError:
                # The container has read enough, or its input went with it.
                return

    def _kill(self, task: Stub) -> None:
        try:
            task.kill(task_pb2.KillRequest(id=self.id, signal=signal.SIGKILL, all=True))
        except StatusError:
            pass


def summary(vm: MicroVM, run: Run, status: int) -> str:
    """What a newcomer wants to know of what just happened."""
    serving = vm.console.serving
    lines = [
        f"kernel       {serving.get('kernel')}, cgroup {serving.get('cgroup')}, "
        f"share {vm.config.sharefs}",
        f"agent        {serving.get('version')}",
        f"accelerator  {vm.accelerator.name} ({vm.accelerator.reason})",
        "boot         " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in phases(vm, run)),
        "  in init    " + ", ".join(f"{s['step']} {float(s['ms']):.0f}" for s in vm.console.steps),
        f"exit status  {status}",
    ]
    rule = "-" * 72
    return "\n".join([rule, *lines, rule])


def phases(vm: MicroVM, run: Run) -> list[tuple[str, float]]:
    """Milliseconds from QEMU's start to each point, as the host saw it."""
    points = [
        ("init", vm.console.init_at),
        ("serving", vm.ready_at),
        ("first output", run.first_output_at),
    ]
    return [(name, (at - vm.started_at) * 1000) for name, at in points if at is not None]
