"""One container in a microVM, with the input and output of this process."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import gevent
from gevent.os import tp_read

from kuasar_agent.api import agent_pb2, task_pb2
from kuasar_agent.ttrpc import StatusError, Stub, dial
from kuasar_host.bundle import make_bundle
from kuasar_host.sandbox import Sandbox
from kuasar_host.services import TASK

_PORTS = range(20000, 30000)
_CONNECT_WITHIN = 10.0
# Seconds without output after the container's end until the rest of it is given up.
_SILENCE = 10.0
_CHUNK = 65536


class Run:
    """One container, from its bundle to its exit status."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.id = f"run-{uuid.uuid4().hex[:8]}"
        self.first_output_at: float | None = None
        self._sandbox = sandbox
        self._task: Stub | None = None
        self._moved_at = 0.0
        # Several runs in one microVM share its vsock ports: take different ones.
        first = _PORTS[int(self.id[4:], 16) % (len(_PORTS) - 2)]
        self._stdin, self._stdout, self._stderr = range(first, first + 3)

    def run(self, command: Sequence[str], rootfs: Path | None = None) -> int:
        """Run the container and return its exit status; its bundle is removed.

        Raises:
            HostError: the bundle cannot be made.
            StatusError: the agent refuses a call, or is gone.

        Blocks: the greenlet.
        """
        bundle = self._sandbox.shared / self.id
        try:
            make_bundle(self._sandbox.shared, self.id, command, rootfs)
            with self._sandbox.connect() as client:
                return self._run_bundle(client.stub(TASK))
        finally:
            shutil.rmtree(bundle, ignore_errors=True)

    def _run_bundle(self, task: Stub) -> int:
        feed = not sys.stdin.isatty()
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
                print(
                    f"the output does not end: nothing came for {_SILENCE:.0f} s", file=sys.stderr
                )
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
                # The container has closed its input or has ended.
                return

    def kill(self) -> bool:
        """Kill the container; return False if there is none."""
        if self._task is None:
            return False
        # It may have ended by itself meanwhile.
        with contextlib.suppress(StatusError):
            self._task.kill(task_pb2.KillRequest(id=self.id, signal=signal.SIGKILL, all=True))
        return True


def summary(sandbox: Sandbox, run: Run, status: int) -> str:
    """Return a few lines about the guest, its boot and the container's end."""
    boot = _boot_report(sandbox)
    # Only the console has the cgroup version, and with task.log_level=warn not even that.
    cgroup = sandbox.console.serving().get("cgroup")
    lines = [
        f"kernel       {boot.kernel}{f', cgroup {cgroup}' if cgroup else ''}, "
        f"share {sandbox.sharefs}",
        f"agent        {boot.version}",
        f"accelerator  {sandbox.accelerator.name} ({sandbox.accelerator.reason})",
        "boot         " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in phases(sandbox, run)),
        "  in init    " + ", ".join(f"{step.name} {step.ms:.0f}" for step in boot.steps),
        f"exit status  {status}",
    ]
    rule = "-" * 72
    return "\n".join([rule, *lines, rule])


def _boot_report(sandbox: Sandbox) -> agent_pb2.BootResponse:
    try:
        return sandbox.boot_report()
    except (StatusError, OSError):
        # Another agent, such as Kuasar's own, or a guest that has just ended.
        return agent_pb2.BootResponse(kernel="unknown", version="unknown")


def phases(sandbox: Sandbox, run: Run) -> list[tuple[str, float]]:
    """Return the milliseconds from QEMU's start to each point, on the host's clock."""
    points = [
        ("kernel", sandbox.console.kernel_at),
        ("init", sandbox.console.init_at),
        ("serving", sandbox.ready_at),
        ("first output", run.first_output_at),
    ]
    return [(name, (at - sandbox.started_at) * 1000) for name, at in points if at is not None]
