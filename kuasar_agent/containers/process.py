"""One process of a container: the container's own first one, or an exec.

    CREATED -> RUNNING -> STOPPED
       |        ^   |
       |        v   |
       |       PAUSED
       +------> STOPPED      killed before it was started

Nothing leaves STOPPED; a record outlives its deletion for those who wait on it.
"""

from __future__ import annotations

from enum import IntEnum

import gevent.event

from kuasar_agent.containers.bundle import StdioUrls
from kuasar_agent.errors import FailedPrecondition
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Child, Exit
from kuasar_agent.stdio.stdio import Stdio

log = get_logger(__name__)


class Status(IntEnum):
    """The numbers are those of containerd.v1.types.Status."""

    CREATED = 1
    RUNNING = 2
    STOPPED = 3
    PAUSED = 4
    PAUSING = 5


_NEXT = {
    Status.CREATED: {Status.RUNNING, Status.STOPPED},
    Status.RUNNING: {Status.PAUSED, Status.STOPPED},
    Status.PAUSED: {Status.RUNNING, Status.STOPPED},
    Status.STOPPED: set[Status](),
}


class Process:
    """The record that State and Wait answer from, and the process's streams."""

    def __init__(self, id: str, urls: StdioUrls) -> None:
        self.id = id
        self.urls = urls
        self.status = Status.CREATED
        self.child: Child | None = None
        self.exit: Exit | None = None
        self.stdio: Stdio | None = None
        self.size: tuple[int, int] | None = None
        """The terminal's width and height in characters, as last set."""
        self._stopped = gevent.event.Event()

    @property
    def pid(self) -> int:
        """Pid in the guest's root namespace; 0 before the process exists."""
        return self.child.pid if self.child else 0

    def move(self, status: Status) -> None:
        """Take a transition of the table above; raises FailedPrecondition for any other."""
        if status not in _NEXT[self.status]:
            raise FailedPrecondition(
                f"process {self.id} is {self.status.name.lower()}, cannot become "
                f"{status.name.lower()}"
            )
        self.status = status

    def stop(self, exit: Exit) -> None:
        """Record how the process ended and wake everyone who waits."""
        self.move(Status.STOPPED)
        self.exit = exit
        self._stopped.set()

    def wait(self, timeout: float | None = None) -> Exit | None:
        """The exit as recorded, or None when `timeout` (seconds) passed first."""
        self._stopped.wait(timeout)
        return self.exit

    def attach(self, stdio: Stdio) -> None:
        """Give it its streams."""
        self.stdio = stdio
        if self.size is not None:
            stdio.resize(*self.size)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the terminal, in characters, now or later; ignored without one."""
        self.size = width, height
        if self.stdio is not None:
            self.stdio.resize(width, height)

    def close_stdin(self) -> None:
        """End the input after what the host has sent."""
        if self.stdio is not None:
            self.stdio.close_stdin()

    def close_stdio(self) -> None:
        """Deliver the output that is there, for a while, and give the streams back."""
        if self.stdio is not None:
            if not self.stdio.settle():
                log.warning("output dropped: nobody took it in time", id=self.id)
            self.stdio.close()
