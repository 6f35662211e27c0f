"""One container: a bundle, a runtime that runs it, its first process and what belongs to it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple

import gevent
import gevent.lock

from kuasar_agent.containers.bundle import Bundle
from kuasar_agent.containers.process import Process, Status
from kuasar_agent.containers.runtime import OCIRuntime, RuntimeFailed
from kuasar_agent.containers.stdio import Stdio
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Child
from kuasar_agent.ttrpc.status import FailedPrecondition, InvalidArgument, NotFound, StatusError

if TYPE_CHECKING:
    from kuasar_agent.containers.group import Group
    from kuasar_agent.containers.resource_spec import Resources

log = get_logger(__name__)

_KILLED_WITHIN = 10.0

_ALREADY_GONE = ("not running", "already finished", "no such process")


class RuntimeOptions(NamedTuple):
    """What a Create request may ask of the runtime."""

    no_pivot: bool = False
    no_new_keyring: bool = False


class Container:
    """Lifecycle calls of one container; they exclude each other through its lock."""

    def __init__(
        self, id: str, bundle: Bundle, runtime: OCIRuntime, init: Process, group: Group
    ) -> None:
        self.id = id
        self.bundle = bundle
        self.init = init
        self.group = group
        self._runtime = runtime
        self._stdio: Stdio | None = None
        self._deleted = False
        self._lock = gevent.lock.BoundedSemaphore()

    def create(self, stdio: Stdio, options: RuntimeOptions) -> None:
        """Create it in the runtime. Raises the runtime's error; nothing is left behind then."""
        self._stdio = stdio
        stdin, stdout, stderr = stdio.child_fds
        try:
            child = self._runtime.create(
                self.id,
                self.bundle.path,
                (stdin, stdout, stderr),
                pid_file=self.bundle.pid_file,
                console_socket=stdio.console_socket,
                no_pivot=options.no_pivot,
                no_new_keyring=options.no_new_keyring,
            )
            stdio.start()
        except BaseException:
            stdio.close()
            self._remove_remains()
            raise
        self.init.child = child
        self.group.follow(child)
        gevent.spawn(self._follow, child)

    def start(self) -> None:
        """Run the user's program. Raises FailedPrecondition unless it is CREATED."""
        with self._lock:
            if self.init.status is not Status.CREATED:
                raise FailedPrecondition(
                    f"container {self.id} is {self.init.status.name.lower()}, not created"
                )
            self._runtime.start(self.id, self.bundle.path)
            # The program may have ended, and its exit been recorded, while the command returned.
            if self.init.status is Status.CREATED:
                self.init.move(Status.RUNNING)

    def kill(self, number: int, *, everyone: bool = False) -> None:
        """Send a signal. Raises NotFound when there is no process left to take it."""
        if not 0 <= number <= signal.SIGRTMAX:
            raise InvalidArgument(f"invalid signal {number}")
        if self.init.status is Status.STOPPED and not everyone:
            raise NotFound("process already finished")
        try:
            self._runtime.kill(self.id, self.bundle.path, number, everyone=everyone)
        except RuntimeFailed as error:
            text = error.text.lower()
            if any(words in text for words in _ALREADY_GONE):
                raise NotFound("process already finished") from None
            if "does not exist" in text:
                raise NotFound("no such container") from None
            raise

    def update(self, resources: Resources) -> None:
        """Change the limits. Raises FailedPrecondition once it has stopped."""
        with self._lock:
            if self.init.status is Status.STOPPED:
                raise FailedPrecondition(f"container {self.id} is stopped")
            self.group.update(resources)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the terminal, in characters."""
        if self._stdio is not None:
            self._stdio.resize(width, height)

    def close_stdin(self) -> None:
        """End the input after what the host has sent."""
        if self._stdio is not None:
            self._stdio.close_stdin()

    def delete(self) -> None:
        """Kill what runs, deliver the output that is there, give everything back.

        Raises NotFound when another call did so first.
        """
        with self._lock:
            if self._deleted:
                raise NotFound(f"can not find container by id {self.id}")
            self._runtime.delete(self.id, self.bundle.path)
            if self.init.wait(_KILLED_WITHIN) is None:
                log.error("container's process does not end", id=self.id, pid=self.init.pid)
            if self._stdio is not None:
                if not self._stdio.drain():
                    log.warning("output dropped: nobody took it in time", id=self.id)
                self._stdio.close()
            self.group.close()
            self._deleted = True

    def _follow(self, child: Child) -> None:
        """Record the exit of the first process once nothing of the container runs any more."""
        exit = child.wait()
        assert exit is not None
        if self.bundle.shares_pids:
            self._kill_the_rest()
        self.group.report_kills()
        self.init.stop(exit)
        log.info("container exited", id=self.id, pid=exit.pid, status=exit.status)

    def _kill_the_rest(self) -> None:
        try:
            self._runtime.kill(self.id, self.bundle.path, signal.SIGKILL, everyone=True)
        except StatusError as error:
            log.debug("kill of the container's other processes", id=self.id, error=error)

    def _remove_remains(self) -> None:
        try:
            self._runtime.delete(self.id, self.bundle.path)
        except StatusError as error:
            log.warning("clean-up after a failed create", id=self.id, error=error)
