"""A directory in which a microVM runs, as whoever wants to talk to the guest sees it.

    D/shared        shared with the guest under the tag `kuasar`
    D/task.vsock    hybrid vsock: `CONNECT <port>\\n`, then `OK <port>\\n`, then the guest
    D/console.log   the guest's console
    D/qmp.sock      QEMU's monitor
    D/vm.json       how the microVM was booted, once it serves
    D/pid           the process that keeps the microVM
    D/lock          locked while a process of the microVM lives: each of them holds it

The first three are what Kuasar has for a Cloud Hypervisor sandbox.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kuasar_agent.ttrpc import Client, connect
from kuasar_host.accel import Accelerator
from kuasar_host.errors import DebugError
from kuasar_host.qmp import Qmp
from kuasar_host.serial_log import SerialLog

TASK_PORT = 1024
_ABOUT = "vm.json"
_STOP_WITHIN = 10.0


class Sandbox:
    def __init__(self, directory: Path, echo: Callable[[str], None] | None = None) -> None:
        self.directory = directory
        self.shared = directory / "shared"
        self.vsock = directory / "task.vsock"
        self.console = SerialLog(directory / "console.log", echo)
        self.accelerator = Accelerator("", "")
        self.sharefs = ""
        self.started_at = 0.0
        """When QEMU was executed, on time.monotonic()'s clock, which processes share."""
        self.ready_at = 0.0

    @classmethod
    def attach(cls, directory: Path) -> Sandbox:
        """The microVM that another process keeps in `directory`. Raises DebugError."""
        # A process that was killed leaves its description behind, but no lock.
        file = directory / _ABOUT
        if not is_running(directory) or not file.exists():
            raise DebugError(f"{directory}: no microVM serves there")
        about = json.loads(file.read_text())
        sandbox = cls(directory)
        sandbox.accelerator = Accelerator(*about["accelerator"])
        sandbox.sharefs = about["sharefs"]
        sandbox.started_at, sandbox.ready_at = about["started_at"], about["ready_at"]
        sandbox.console.read_past(about["init_at"])
        return sandbox

    def address(self, port: int = TASK_PORT) -> str:
        return f"hvsock://{self.vsock}:{port}"

    def connect(self, timeout: float = 10.0) -> Client:
        """A ttrpc client of the agent. Raises OSError when it does not answer in time."""
        return connect(self.address(), timeout)

    def qmp(self) -> Qmp:
        """QEMU's monitor; it serves one client at a time. Raises OSError."""
        return Qmp(self.directory / "qmp.sock")

    def _describe(self) -> None:
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
    """A descriptor that holds the directory until it is closed. Raises DebugError if it is held."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise DebugError(f"{directory}: a microVM runs there already") from None
    return fd


def is_running(directory: Path) -> bool:
    """Whether a process of a microVM lives in `directory`."""
    try:
        with _locked_shared(directory, fcntl.LOCK_NB):
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def stop(directory: Path, within: float = _STOP_WITHIN) -> None:
    """End the microVM of `directory`; none of its processes is left at the return.

    A keeper that does not end `within` seconds is killed. Raises DebugError when there is none.
    """
    with contextlib.ExitStack() as held:
        try:
            keeper = os.pidfd_open(int((directory / "pid").read_text()))
        except (OSError, ValueError):
            keeper = -1
        else:
            held.callback(os.close, keeper)
        # The lock says that the process of that number is still the one that wrote it.
        if keeper < 0 or not is_running(directory):
            raise DebugError(f"{directory}: no microVM runs there")
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(keeper, signal.SIGTERM)
            if not _ended(keeper, within):
                signal.pidfd_send_signal(keeper, signal.SIGKILL)
                _ended(keeper, None)
    # A keeper that was killed leaves it to the kernel to kill what it had started.
    with _locked_shared(directory):
        pass


@contextlib.contextmanager
def _locked_shared(directory: Path, flags: int = 0) -> Iterator[None]:
    """Inside the block no process of a microVM lives. Raises BlockingIOError with LOCK_NB."""
    with (directory / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH | flags)
        yield


def _ended(process: int, within: float | None) -> bool:
    return bool(select.select([process], [], [], within)[0])
