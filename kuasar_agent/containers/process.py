"""One process of a container: its init process or an exec, behind one interface.

    CREATED -> RUNNING -> STOPPED
       |        ^   |
       |        v   |
       |       PAUSED
       +------> STOPPED      killed before it was started

No transition leaves STOPPED; a record outlives its deletion for the calls that wait on it.

Order of what callers and event readers are told:

* The start of a process comes before its exit, also when the program ends at once.
* An OOM kill comes before the exit that it caused.
* The exit of the init process is the last exit of its container: execs that still run are ended
  and told first (`Container.end_execs`).
* Output comes before the exit: the host has taken all that was in the pipes when the process
  ended, or has taken nothing for the drain grace (`Stdio.settle`).
* State shows STOPPED, and Wait answers, before the exit event is published.
"""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import gevent.event

from kuasar_agent.containers.bundle import Bundle
from kuasar_agent.containers.runtime import OCIRuntime
from kuasar_agent.containers.shared_lock import SharedLock
from kuasar_agent.errors import FailedPrecondition, InvalidArgument
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Child, Exit
from kuasar_agent.stdio.stdio import Stdio
from kuasar_agent.stdio.urls import StdioUrls

if TYPE_CHECKING:
    from kuasar_agent.containers.task_events import TaskEvents
    from kuasar_agent.resources.container_cgroup import ContainerCgroup

log = get_logger(__name__)

KILLED_WITHIN = 10.0
"""Seconds for a process to end after SIGKILL; only one in an uninterruptible wait takes longer."""


class Status(IntEnum):
    """The numbers are those of containerd.v1.types.Status."""

    CREATED = 1
    RUNNING = 2
    STOPPED = 3
    PAUSED = 4


_NEXT = {
    Status.CREATED: {Status.RUNNING, Status.STOPPED},
    Status.RUNNING: {Status.PAUSED, Status.STOPPED},
    Status.PAUSED: {Status.RUNNING, Status.STOPPED},
    Status.STOPPED: set[Status](),
}


class ContainerContext(NamedTuple):
    """The parts that the processes of one container share."""

    id: str
    bundle: Bundle
    runtime: OCIRuntime
    open_stdio: Callable[[StdioUrls], Stdio]
    events: TaskEvents
    cgroup: ContainerCgroup
    lifecycle: SharedLock
    """Held shared while an exec is added or started, exclusive by every other lifecycle call."""


class Process(ABC):
    """The record from which State and Wait answer, and the streams of the process.

    Fields are written by one greenlet at a time: `status` and `exit` under the lifecycle lock or
    by the greenlet that follows the process, `stdio` and `child` by `create` or `start`.
    """

    def __init__(self, id: str, urls: StdioUrls, context: ContainerContext) -> None:
        self.id = id
        self.urls = urls
        self.status = Status.CREATED
        self.child: Child | None = None
        """Its `exit` is set when the kernel reports the end of the process …"""
        self.exit: Exit | None = None
        """… and this one when callers may know of it."""
        self.stdio: Stdio | None = None
        self.size: tuple[int, int] | None = None
        """The terminal's width and height in characters, as last set."""
        self._context = context
        self._stopped = gevent.event.Event()

    @property
    def pid(self) -> int:
        """The pid in the guest's root namespace; 0 before the process exists."""
        return self.child.pid if self.child else 0

    @property
    def is_alive(self) -> bool:
        """Whether a process exists, or may exist soon, whose exit has not been told."""
        return self.stdio is not None and self.exit is None

    @property
    def has_ended(self) -> bool:
        """Whether the kernel has reported the end, of which callers may not know yet."""
        return self.child is not None and self.child.exit is not None

    @abstractmethod
    def create(self) -> None:
        """Prepare the process so that `start` can run it; everything is undone on an error."""

    @abstractmethod
    def start(self) -> None:
        """Run the program.

        Raises:
            FailedPrecondition: it was started before, or the container does not allow it.
            AgentError: the error of the runtime.
        """

    def kill(self, number: int, *, everyone: bool = False) -> None:
        """Send a signal, with `everyone` to all processes of the container.

        Raises:
            InvalidArgument: the kernel has no such signal.
            FailedPrecondition: an exec was not started.
            NotFound: there is no process left that could take it.
        """
        if not 0 <= number <= signal.SIGRTMAX:
            raise InvalidArgument(f"invalid signal {number}")
        self._kill(number, everyone)

    @abstractmethod
    def _kill(self, number: int, everyone: bool) -> None:
        """Send a signal whose number is valid; see `kill`."""

    @abstractmethod
    def delete(self) -> None:
        """Kill the process if it runs, deliver its output and release its resources.

        Raises:
            NotFound: another call deleted it first.
        """

    def wait(self) -> Exit:
        """Wait for the exit as it is told to callers. Blocks: the greenlet."""
        self._stopped.wait()
        assert self.exit is not None
        return self.exit

    def wait_for(self, timeout: float) -> Exit | None:
        """Wait for the exit, at most `timeout` seconds; None when they passed."""
        self._stopped.wait(timeout)
        return self.exit

    def resize(self, width: int, height: int) -> None:
        """Set the size of the terminal, in characters, now or later; no-op without a terminal."""
        self.size = width, height
        if self.stdio is not None:
            self.stdio.resize(width, height)

    def close_stdin(self) -> None:
        """End the input after the bytes that the host has sent."""
        if self.stdio is not None:
            self.stdio.close_stdin()

    def move(self, status: Status) -> None:
        """Take a transition of the table above.

        Raises:
            FailedPrecondition: the table has no such transition.
        """
        if status not in _NEXT[self.status]:
            raise FailedPrecondition(
                f"process {self.id} is {self.status.name.lower()}, cannot become "
                f"{status.name.lower()}"
            )
        self.status = status

    def require(self, *statuses: Status) -> None:
        """Check the status.

        Raises:
            FailedPrecondition: it is none of `statuses`.
        """
        if self.status not in statuses:
            raise FailedPrecondition(
                f"{self.kind} {self.id} is {self.status.name.lower()}, "
                f"not {' or '.join(status.name.lower() for status in statuses)}"
            )

    @property
    @abstractmethod
    def kind(self) -> str:
        """The word for it in messages."""

    def _launch(self, run: Callable[[Stdio], Child]) -> None:
        """Open the streams, have `run` start the process with them, and begin to copy.

        Raises any error of these steps. The streams are closed then; a process that exists already
        is for the caller to end.
        """
        stdio = self._context.open_stdio(self.urls)
        self.stdio = stdio
        if self.size is not None:
            stdio.resize(*self.size)
        try:
            self.child = run(stdio)
            stdio.start()
        except BaseException:
            stdio.close()
            raise

    def _settle(self) -> None:
        """Let the host take the output of a process that has ended. Blocks: the greenlet."""
        if self.stdio is not None and not self.stdio.settle():
            log.info("the exit is told before the output is taken", id=self.id)

    def _await_end(self, child: Child) -> None:
        """Wait for a process that was killed, then until its exit is told.

        The second wait lasts as long as the host takes output.
        """
        if child.wait_for(KILLED_WITHIN) is None:
            log.error("process outlives SIGKILL", id=self._context.id, process=self.id)
        else:
            self.wait()

    def _stop(self, exit: Exit) -> None:
        """Record how the process ended and wake every caller that waits."""
        self.move(Status.STOPPED)
        self.exit = exit
        self._stopped.set()

    def _close_stdio(self) -> None:
        """Deliver the output unless the grace has passed, then release the streams."""
        if self.stdio is not None:
            if not self.stdio.settle():
                log.warning("output dropped: no reader took it in time", id=self.id)
            self.stdio.close()
