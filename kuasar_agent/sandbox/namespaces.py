"""The namespaces that the containers of a pod share, held by bind mounts (namespaces(7)).

Namespaces belong to a thread, not to its process. A thread of its own makes them, writes their
sysctls, mounts them and ends, so that the agent itself never leaves the namespaces of the guest.
Only the first process of a shared pid namespace is forked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from subprocess import DEVNULL
from typing import NamedTuple

from kuasar_agent.blocking import in_own_thread, off_hub
from kuasar_agent.directories import NAMESPACES
from kuasar_agent.errors import FailedPrecondition, explained
from kuasar_agent.linux import syscalls, sysctls
from kuasar_agent.linux.mount import MS_BIND, mounts, unmount
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Child, Reaper

log = get_logger(__name__)

# The kernel reaps the children of a process that ignores SIGCHLD, and execve(2) keeps the signal
# ignored, so that the orphans of the pid namespace do not stay zombies. Bash, unlike other shells,
# passes an ignored SIGCHLD to the programs that it executes.
_PAUSE = ("/bin/bash", "-c", "trap '' CHLD; exec sleep 2147483647")


class Kind(NamedTuple):
    """A kind of namespace: its name in Kuasar's specs and in /proc/<pid>/ns."""

    name: str
    flag: int


IPC = Kind("ipc", syscalls.CLONE_NEWIPC)
UTS = Kind("uts", syscalls.CLONE_NEWUTS)
PID = Kind("pid", syscalls.CLONE_NEWPID)


class PodNamespaces:
    """The namespaces of the pod. A call that fails removes what it made."""

    def __init__(self, reaper: Reaper, directory: str = NAMESPACES) -> None:
        self._reaper = reaper
        self._directory = directory
        self._pause: Child | None = None

    def ensure(self, *, share_pid: bool, hostname: str, values: Mapping[str, str]) -> None:
        """Make the missing ones of ipc, uts and, with `share_pid`, pid; write sysctls inside.

        Args:
            hostname: the host name of a new uts namespace; an empty one is not set.
            values: the `pod` part of sysctls.split().

        Raises:
            AgentError: a step failed; the message names it.

        Blocks: the greenlet.
        """
        if self._pause is not None and self._pause.exit is not None:
            log.warning("the pause process is gone, the pod gets a new pid namespace")
            self._pause = None
            off_hub(self._release, PID)
        kinds = (IPC, UTS, PID) if share_pid else (IPC, UTS)
        with self._reaper.adopting() as adoption:
            pid = in_own_thread(self._make, kinds, hostname, values)
            if pid is not None:
                self._pause = adoption.claim(pid)

    def _make(self, kinds: Sequence[Kind], hostname: str, values: Mapping[str, str]) -> int | None:
        """Make namespaces in a thread of its own; return the pid of a new first process."""
        undo = contextlib.ExitStack()
        with explained(f"pod namespaces in {self._directory}"), undo:
            os.makedirs(self._directory, exist_ok=True)
            os.chmod(self._directory, 0o711)
            held = {entry.target for entry in mounts() if entry.fstype == "nsfs"}
            missing = [kind for kind in kinds if self._path(kind) not in held]
            for kind in (IPC, UTS):
                if kind not in missing:
                    _join(self._path(kind), kind)
            syscalls.unshare(sum(kind.flag for kind in missing))
            pause = self._start_pause(undo) if PID in missing else None
            if UTS in missing and hostname:
                with explained(f"hostname {hostname}"):
                    socket.sethostname(hostname)
            sysctls.write(values)
            for kind in missing:
                undo.callback(self._release, kind)
                self._hold(kind, f"/proc/{pause}" if kind is PID else "/proc/thread-self")
            undo.pop_all()
        return pause

    def _start_pause(self, undo: contextlib.ExitStack) -> int:
        if shutil.which("sleep") is None:
            raise FailedPrecondition("no program `sleep` for the pod's pid namespace")
        # Not the reaper's spawn, which only the hub's thread may call; that claims the pid later.
        pause = subprocess.Popen(
            _PAUSE, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, cwd="/", start_new_session=True
        )
        pause.returncode = 0  # keeps subprocess from waiting for it: only the reaper may
        undo.callback(_kill, pause.pid)
        return pause.pid

    def _hold(self, kind: Kind, process: str) -> None:
        path = self._path(kind)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        syscalls.mount(f"{process}/ns/{kind.name}", path, None, MS_BIND)

    def _release(self, kind: Kind) -> None:
        path = self._path(kind)
        with contextlib.suppress(OSError):
            unmount(path)
            os.unlink(path)

    def _path(self, kind: Kind) -> str:
        return f"{os.path.realpath(self._directory)}/{kind.name}"


def _join(path: str, kind: Kind) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, kind.flag)
    finally:
        os.close(fd)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
