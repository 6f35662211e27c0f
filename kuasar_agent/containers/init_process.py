"""The init process of a container, created by the runtime together with the container."""

from __future__ import annotations

import signal
from collections.abc import Callable

import gevent
import gevent.event

from kuasar_agent.containers.create_cleanup import CreateCleanup
from kuasar_agent.containers.process import ContainerContext, Process, Status
from kuasar_agent.containers.runtime import RuntimeFailed, RuntimeOptions
from kuasar_agent.errors import AgentError, NotFound
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Child
from kuasar_agent.stdio.stdio import Stdio
from kuasar_agent.stdio.urls import StdioUrls

log = get_logger(__name__)

_ALREADY_GONE = ("not running", "already finished", "no such process")
_NO_CONTAINER = ("does not exist", "/status`: no such file")
"""runc's words, and crun's when a deletion removes its record meanwhile."""


class InitProcess(Process):
    """Its id is the container's, and its end is the end of the container."""

    kind = "container"

    def __init__(
        self,
        urls: StdioUrls,
        context: ContainerContext,
        options: RuntimeOptions,
        end_execs: Callable[[], None],
    ) -> None:
        """`end_execs` returns once no exec of the container runs any more."""
        super().__init__(context.id, urls, context)
        self._options = options
        self._end_execs = end_execs
        self._start_told = gevent.event.Event()
        """Cleared while a start is under way, which has to be told before the exit."""
        self._start_told.set()

    def create(self) -> None:
        """Create the container in the runtime; its program waits for `start`."""
        cleanup = CreateCleanup(self._context.runtime, self._context.bundle, self.id)
        try:
            self._launch(self._create)
        except BaseException:
            cleanup.remove()
            raise
        assert self.child is not None
        self._context.cgroup.follow(self.child)
        self._context.events.created(self._context.bundle.path, self)
        gevent.spawn(self._follow, self.child)

    def start(self) -> None:
        with self._context.lifecycle.exclusive():
            self.require(Status.CREATED)
            self._start_told.clear()
            try:
                self._context.runtime.start(self.id)
                # The program may have ended, and its exit been recorded, meanwhile.
                if self.status is Status.CREATED:
                    self.move(Status.RUNNING)
                self._context.events.started(self)
            finally:
                self._start_told.set()

    def _kill(self, number: int, everyone: bool) -> None:
        if self.status is Status.STOPPED and not everyone:
            raise NotFound("process already finished")  # contract: containerd
        try:
            self._context.runtime.kill(self.id, number, everyone=everyone)
        except RuntimeFailed as error:
            text = error.text.lower()
            if any(words in text for words in _ALREADY_GONE):
                raise NotFound("process already finished") from None  # contract: containerd
            if any(words in text for words in _NO_CONTAINER):
                raise NotFound("no such container") from None  # contract: containerd
            raise
        if number == signal.SIGKILL and self.status is Status.PAUSED:
            self.thaw()

    def delete(self) -> None:
        """Kill the container if it runs, deliver the output and remove it from the runtime.

        The container calls it once, under the exclusive lifecycle lock.
        """
        if self.status is Status.PAUSED:
            self.kill_the_rest()
            self.thaw()
        self._context.runtime.delete(self.id)
        assert self.child is not None
        self._await_end(self.child)
        self._close_stdio()

    def kill_the_rest(self) -> None:
        """Send SIGKILL to every process of the container; a failure is only logged."""
        try:
            self._context.runtime.kill(self.id, signal.SIGKILL, everyone=True)
        except AgentError as error:
            log.debug("kill of the container's other processes", id=self.id, error=error)

    def thaw(self) -> None:
        """Let frozen processes run: with cgroup v1 those do not even die. Failures are logged."""
        try:
            self._context.runtime.resume(self.id)
        except AgentError as error:
            log.debug("nothing to resume", id=self.id, error=error)

    def _create(self, stdio: Stdio) -> Child:
        stdin, stdout, stderr = stdio.child_fds
        bundle = self._context.bundle
        return self._context.runtime.create(
            self.id,
            bundle.path,
            (stdin, stdout, stderr),
            pid_file=bundle.pid_file,
            console_socket=stdio.console_socket,
            options=self._options,
        )

    def _follow(self, child: Child) -> None:
        """Tell the exit once nothing of the container runs any more."""
        exit = child.wait()
        if self._context.bundle.shares_pids:
            self.kill_the_rest()
        # Concurrently with the outputs of the execs: each may wait for its reader.
        settling = gevent.spawn(self._settle)
        self._end_execs()
        self._context.cgroup.report_kills()
        settling.join()
        self._stop(exit)
        log.info("container exited", id=self.id, pid=exit.pid, status=exit.status)
        self._start_told.wait()
        self._context.events.exited(self)
