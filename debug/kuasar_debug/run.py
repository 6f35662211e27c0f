"""Run one container in a microVM, with its input and output on ours."""

from __future__ import annotations

import contextlib
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
from kuasar_host.bundle import make_bundle
from kuasar_host.sandbox import Sandbox

_TASK = task_pb2.DESCRIPTOR.services_by_name["Task"]
_PORTS = range(20000, 30000)
_CONNECT_WITHIN = 10.0
# After the container's end, output that does not move for this long is given up.
_SILENCE = 10.0
_CHUNK = 65536


class Run:
    """One container's way through the microVM."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.id = f"run-{uuid.uuid4().hex[:8]}"
        self.first_output_at: float | None = None
        self._sandbox = sandbox
        self._task: Stub | None = None
        self._moved_at = 0.0
        # Several runs share the guest's ports when they share its microVM.
        first = _PORTS[int(self.id[4:], 16) % (len(_PORTS) - 2)]
        self._stdin, self._stdout, self._stderr = range(first, first + 3)

    def run(self, command: Sequence[str], rootfs: Path | None = None) -> int:
        """The container's exit status. Raises StatusError when the agent refuses something."""
        make_bundle(self._sandbox.shared, self.id, command, rootfs)
        feed = not sys.stdin.isatty()
        with self._sandbox.connect() as client:
            task = client.stub(_TASK)
            request = task_pb2.CreateTaskRequest(
                id=self.id,
                stdin=f"vsock://3:{self._stdin}" if feed else "",
                stdout=f"vsock://3:{self._stdout}",
                stderr=f"vsock://3:{self._stderr}",
            )
            task.create(request)
            try:
                return self._run_created(task, feed=feed)
            finally:
                task.delete(task_pb2.DeleteRequest(id=self.id))

    def _run_created(self, task: Stub, *, feed: bool) -> int:
        outputs = [
            gevent.spawn(self._print, self._stdout, sys.stdout.buffer),
            gevent.spawn(self._print, self._stderr, sys.stderr.buffer),
        ]
        feeder = gevent.spawn(self._feed) if feed else None
        self._task = task
        try:
            task.start(task_pb2.StartRequest(id=self.id))
            exit = task.wait(task_pb2.WaitRequest(id=self.id))
        finally:
            self._task = None
        self._drain(outputs)
        if feeder is not None:
            feeder.kill(block=False)
        return int(exit.exit_status)

    def _drain(self, outputs: list[gevent.Greenlet[..., None]]) -> None:
        self._moved_at = time.monotonic()
        while not all(output.dead for output in outputs):
            gevent.joinall(outputs, timeout=1)
            if time.monotonic() > self._moved_at + _SILENCE:
                print(f"no end of the output after {_SILENCE:.0f} s", file=sys.stderr)
                gevent.killall(outputs)

    def _print(self, port: int, target: IO[bytes]) -> None:
        with dial(self._sandbox.address(port), _CONNECT_WITHIN) as peer:
            while data := peer.recv(_CHUNK):
                if self.first_output_at is None:
                    self.first_output_at = time.monotonic()
                target.write(data)
                target.flush()
                self._moved_at = time.monotonic()

    def _feed(self) -> None:
        with dial(self._sandbox.address(self._stdin), _CONNECT_WITHIN) as peer:
            try:
                while data := tp_read(sys.stdin.fileno(), _CHUNK):
                    peer.sendall(data)
            except OSError:
                # The container has read enough, or its input went with it.
                return

    def kill(self) -> bool:
        """Kill the container; False if there is none to kill."""
        if self._task is None:
            return False
        # It may have ended by itself meanwhile.
        with contextlib.suppress(StatusError):
            self._task.kill(task_pb2.KillRequest(id=self.id, signal=signal.SIGKILL, all=True))
        return True


def summary(sandbox: Sandbox, run: Run, status: int) -> str:
    """What a newcomer wants to know of what just happened."""
    serving, steps = sandbox.console.serving, sandbox.console.steps
    lines = [
        f"kernel       {serving.get('kernel')}, cgroup {serving.get('cgroup')}, "
        f"share {sandbox.sharefs}",
        f"agent        {serving.get('version')}",
        f"accelerator  {sandbox.accelerator.name} ({sandbox.accelerator.reason})",
        "boot         " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in phases(sandbox, run)),
        "  in init    " + ", ".join(f"{s['step']} {float(s['ms']):.0f}" for s in steps),
        f"exit status  {status}",
    ]
    rule = "-" * 72
    return "\n".join([rule, *lines, rule])


def phases(sandbox: Sandbox, run: Run) -> list[tuple[str, float]]:
    """Milliseconds from QEMU's start to each point, as the host saw it."""
    points = [
        ("kernel", sandbox.console.kernel_at),
        ("init", sandbox.console.init_at),
        ("serving", sandbox.ready_at),
        ("first output", run.first_output_at),
    ]
    return [(name, (at - sandbox.started_at) * 1000) for name, at in points if at is not None]
