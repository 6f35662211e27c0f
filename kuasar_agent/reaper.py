"""The only caller of waitpid(2) in the agent.

PID 1 inherits every orphan of the guest, so it has to wait for any child. Two callers of waitpid
would take exit statuses from each other: every process of the agent is started by `Reaper.spawn`.

Two rules keep an exit from being lost or given to the wrong process:

* `spawn` registers the child before the hub can run again.
* A container's first process is a child of the runtime command. It becomes a child of the agent
  when that command ends, and may be dead before its pid is known. While an `Adoption` is open, the
  exits of unregistered pids are kept, and `Adoption.claim` looks there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import gevent
import gevent.event

from kuasar_agent.log import get_logger

log = get_logger(__name__)

# Exits reaped before the hub may run: after a fork bomb, requests are served between batches.
_BATCH = 256


StdioFds = tuple[int, int, int]
"""The descriptors that a process gets as 0, 1 and 2, or subprocess.DEVNULL for each."""


class Exit(NamedTuple):
    """The end of a process: `status` is its exit code, or 128 + the signal that killed it."""

    pid: int
    status: int
    at_ns: int
    """Wall clock in nanoseconds since the epoch, taken when the process was reaped."""


class Child:
    """A registered process: its pid and, once the reaper has collected it, its exit."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exit: Exit | None = None
        """None until the process was reaped; from then on the kernel may give the pid away."""
        self._ended = gevent.event.Event()

    def wait(self) -> Exit:
        """Wait for the exit. Blocks: the greenlet."""
        self._ended.wait()
        assert self.exit is not None
        return self.exit

    def wait_for(self, timeout: float) -> Exit | None:
        """Wait up to `timeout` seconds for the exit; return None when the process still runs.

        Blocks: the greenlet.
        """
        self._ended.wait(timeout)
        return self.exit

    def signal(self, number: int) -> bool:
        """Send a signal; return False when the process has ended.

        A pid that was reaped may belong to another process by now, which must not be hit.
        """
        if self.exit is not None:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def _finish(self, exit: Exit) -> None:
        self.exit = exit
        self._ended.set()


class Adoption:
    """Exits of unregistered pids, kept while a runtime command is in flight."""

    def __init__(self, children: dict[int, Child]) -> None:
        self._children = children
        self._exits: dict[int, Exit] = {}

    def claim(self, pid: int) -> Child:
        """Register a process, dead or alive, that the command left to the agent.

        Raises:
            ChildProcessError: `pid` is no child of the agent and did not end since the adoption
                began.
        """
        child = Child(pid)
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            if (exit := self._exits.pop(pid, None)) is None:
                raise ChildProcessError(f"process {pid} is not a child of the agent") from None
            child._finish(exit)
        else:
            # The pid is in use, so an exit kept under it belongs to an earlier process.
            self._children[pid] = child
        return child

    def _keep(self, exit: Exit) -> None:
        self._exits[exit.pid] = exit


class Reaper:
    """The registry of running children, and the loop that collects every exit of the guest."""

    def __init__(self) -> None:
        self.reaped = 0
        """Number of processes collected so far, orphans included."""
        self._children: dict[int, Child] = {}
        self._adoptions: list[Adoption] = []
        self._wake: Any = None
        self._wake_fds: list[int] = []
        self._reaping = False

    def descriptors(self) -> list[int]:
        return self._wake_fds

    def start(self) -> None:
        """Collect the exits of the past, and every later one as it comes."""
        # First: a hub that is made later sets libev's SIGCHLD handler, which waits for children.
        loop = gevent.get_hub().loop
        # A Python handler runs between two bytecodes: a signal that arrives just before the hub
        # sleeps would wait for the hub's next event. The byte that Python's C handler writes wakes
        # the hub at once.
        readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake_fds = [readable, writable]
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._wake = loop.io(readable, 1)
        self._wake.start(self._on_signal, readable)
        self.reap()

    def _on_signal(self, readable: int) -> None:
        os.read(readable, 4096)
        gevent.spawn(self.reap)

    def reap(self) -> None:
        """Collect every exit that the kernel has, in batches of `_BATCH`."""
        if self._reaping:
            return
        self._reaping = True
        try:
            while self._reap_batch():
                gevent.sleep(0)
        finally:
            self._reaping = False

    def spawn(
        self,
        argv: Sequence[str],
        stdio: StdioFds = (subprocess.DEVNULL, subprocess.DEVNULL, subprocess.DEVNULL),
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        new_session: bool = True,
    ) -> Child:
        """Start a program as the leader of its own session or, without `new_session`, group.

        The scheduler gives a new session a share of its own (CONFIG_SCHED_AUTOGROUP, sched(7)):
        on a busy machine a command with a waiting caller takes twice as long there.

        Raises:
            OSError: the program cannot be executed.
        """
        stdin, stdout, stderr = stdio
        process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=cwd,
            start_new_session=new_session,
            process_group=None if new_session else 0,
        )
        # Popen calls waitpid for objects without a return code whenever a new one is made.
        process.returncode = 0
        child = self._children[process.pid] = Child(process.pid)
        return child

    @contextmanager
    def adopting(self) -> Iterator[Adoption]:
        """Keep the exits of unregistered pids until the block ends."""
        adoption = Adoption(self._children)
        self._adoptions.append(adoption)
        try:
            yield adoption
        finally:
            self._adoptions.remove(adoption)

    def _reap_batch(self) -> bool:
        """Reap up to `_BATCH` exits; return whether there may be more."""
        for _ in range(_BATCH):
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return False
            self._collect(Exit(pid, exit_status(wait_status), time.time_ns()))
        return True

    def _collect(self, exit: Exit) -> None:
        self.reaped += 1
        child = self._children.pop(exit.pid, None)
        if child is not None:
            child._finish(exit)
            return
        for adoption in self._adoptions:
            adoption._keep(exit)


def exit_status(wait_status: int) -> int:
    """Return a wait status as shells and containerd number it: exit code, or 128 + signal."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def ignore_termination(report: Callable[[str], None]) -> list[object]:
    """Report SIGTERM and SIGINT instead of ending; Ctrl-Alt-Del sends SIGINT to init.

    The caller keeps the returned watchers: the handlers end with them.
    """
    return [
        gevent.signal_handler(number, report, number.name)
        for number in (signal.SIGTERM, signal.SIGINT)
    ]
