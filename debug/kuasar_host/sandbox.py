"""A running microVM, seen through the directory that it has on the host.

    D/shared        shared with the guest under the tag `kuasar`
    D/task.vsock    hybrid vsock: `CONNECT <port>\\n`, then `OK <port>\\n`, then the guest
    D/console.log   the guest's console
    D/qmp.sock      QEMU's monitor
    D/vm.json       how the microVM was booted, once it serves
    D/pid           process id of the keeper, the process that booted the microVM
    D/lock          locked while a process of the microVM runs: each of them holds it

Kuasar's directory of a Cloud Hypervisor sandbox has the first two under the same names.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import agent_pb2, sandbox_pb2
from kuasar_agent.ttrpc import Client, StatusError, connect
from kuasar_host import services
from kuasar_host.accel import Accelerator
from kuasar_host.errors import HostError
from kuasar_host.hotplug import HotPlug
from kuasar_host.qemu import MONITOR
from kuasar_host.qmp import Qmp
from kuasar_host.serial_log import SerialLog

_ABOUT = "vm.json"
_STOP_WITHIN = 10.0
# Seconds for one attempt to have an answer of a guest that boots, and between two attempts.
_ATTEMPT, _PAUSE = 1.0, 0.05
_BOOT_WITHIN = 30.0


class Sandbox:
    """A microVM of `kuasar_host`, booted by this process or by another."""

    def __init__(self, directory: Path, echo: Callable[[str], None] | None = None) -> None:
        """Use `attach` or `MicroVM.boot`; `echo` gets every line of the console."""
        self.directory = directory
        self.shared = directory / "shared"
        self.vsock = directory / "task.vsock"
        self.console = SerialLog(directory / "console.log", echo)
        self.accelerator = Accelerator("", "")
        self.sharefs = ""
        self.started_at = 0.0
        """When QEMU was executed, on time.monotonic()'s clock, which processes share."""
        self.ready_at = 0.0
        """When the agent answered for the first time, on the same clock."""

    @classmethod
    def attach(cls, directory: Path) -> Sandbox:
        """Return the microVM that another process keeps in `directory`.

        Raises:
            HostError: no microVM serves there.
        """
        # A keeper that was killed leaves its description behind, but no lock.
        file = directory / _ABOUT
        if not is_running(directory) or not file.exists():
            raise HostError(f"{directory}: no microVM serves there")
        about = json.loads(file.read_text())
        sandbox = cls(directory)
        sandbox.accelerator = Accelerator(*about["accelerator"])
        sandbox.sharefs = about["sharefs"]
        sandbox.started_at, sandbox.ready_at = about["started_at"], about["ready_at"]
        sandbox.console.read_past(about["init_at"])
        return sandbox

    def address(self, port: int = services.TASK_PORT) -> str:
        """Return the address of a port of the guest."""
        return f"hvsock://{self.vsock}:{port}"

    def connect(self, timeout: float = 10.0) -> Client:
        """Connect to the agent.

        Raises:
            OSError: the hypervisor does not listen.
            StatusError: the agent does not answer within `timeout` seconds.

        Blocks: the greenlet.
        """
        return connect(self.address(), timeout)

    def wait_until_ready(self) -> None:
        """Wait until the agent answers `Check`, as Kuasar's host does; set `ready_at`.

        Blocks: the greenlet, without a limit.
        """
        request = sandbox_pb2.CheckRequest()
        while True:
            try:
                # Without a timeout one attempt is made; the pause between two is this function's.
                with connect(self.address()) as client:
                    client.stub(services.SANDBOX).check(request, timeout=_ATTEMPT)
            except (OSError, StatusError):
                gevent.sleep(_PAUSE)
            else:
                self.ready_at = time.monotonic()
                return

    def boot_report(self) -> agent_pb2.BootResponse:
        """Return the agent's record of its start-up.

        Raises:
            OSError, StatusError: as `connect`; Unimplemented from an agent that is not ours.

        Blocks: the greenlet.
        """
        with self.connect() as client:
            report = client.stub(services.AGENT).boot(Empty(), timeout=_BOOT_WITHIN)
        assert isinstance(report, agent_pb2.BootResponse)
        return report

    def qmp(self) -> Qmp:
        """Connect to QEMU's monitor, which serves one client at a time.

        Raises:
            OSError: no QEMU listens.
        """
        return Qmp(self.directory / MONITOR)

    def hotplug(self) -> HotPlug:
        """Connect to QEMU's monitor to add and remove devices. Raises as `qmp`."""
        return HotPlug(self.directory / MONITOR)

    def _describe(self) -> None:
        """Write what `attach` reads."""
        about: dict[str, Any] = {
            "pid": os.getpid(),
            "accelerator": list(self.accelerator),
            "sharefs": self.sharefs,
            "started_at": self.started_at,
            "init_at": self.console.init_at,
            "ready_at": self.ready_at,
        }
        draft = self.directory / f".{_ABOUT}"
        draft.write_text(json.dumps(about, indent=1) + "\n")
        draft.rename(self.directory / _ABOUT)


def lock(directory: Path) -> int:
    """Return a descriptor that holds the directory until it is closed.

    Raises:
        HostError: another process holds it.
    """
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise HostError(f"{directory}: a microVM runs there already") from None
    return fd


def is_running(directory: Path) -> bool:
    """Return whether a process of a microVM runs in `directory`."""
    try:
        with _locked_shared(directory, fcntl.LOCK_NB):
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def stop(directory: Path, within: float = _STOP_WITHIN) -> None:
    """End the microVM of `directory`; none of its processes is left at the return.

    A keeper that does not end `within` seconds is killed.

    Raises:
        HostError: no microVM runs there.

    Blocks: the thread.
    """
    with contextlib.ExitStack() as held:
        try:
            keeper = os.pidfd_open(int((directory / "pid").read_text()))
        except (OSError, ValueError):
            keeper = -1
        else:
            held.callback(os.close, keeper)
        # The lock proves that the process of that number is the one that wrote it.
        if keeper < 0 or not is_running(directory):
            raise HostError(f"{directory}: no microVM runs there")
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(keeper, signal.SIGTERM)
            if not _ended(keeper, within):
                signal.pidfd_send_signal(keeper, signal.SIGKILL)
                _ended(keeper, None)
    # The children of a keeper that was killed are killed by the kernel, a moment later.
    with _locked_shared(directory):
        pass


@contextlib.contextmanager
def _locked_shared(directory: Path, flags: int = 0) -> Iterator[None]:
    """Keep microVMs from starting in the directory; none runs there inside the block.

    Raises:
        BlockingIOError: one runs, and `flags` has LOCK_NB.
    """
    with (directory / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH | flags)
        yield


def _ended(process: int, within: float | None) -> bool:
    """Wait for the end of a process, given by a pidfd."""
    return bool(select.select([process], [], [], within)[0])
