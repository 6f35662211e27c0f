"""An exec: another process in a container that runs, with streams of its own."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import gevent
import gevent.lock

from kuasar_agent.blocking import off_hub
from kuasar_agent.containers.bundle import StdioUrls, load_stdio
from kuasar_agent.containers.process import Process, Status
from kuasar_agent.containers.runtime import OCIRuntime
from kuasar_agent.errors import AgentError, FailedPrecondition, InvalidArgument, NotFound
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Child, Exit
from kuasar_agent.stdio.stdio import Stdio

if TYPE_CHECKING:
    from kuasar_agent.containers.task_events import TaskEvents

log = get_logger(__name__)

OpenStdio = Callable[[StdioUrls], Stdio]

KILLED_WITHIN = 10.0
"""Seconds for a process to end after SIGKILL; only one in an uninterruptible wait takes longer."""

_NEVER_RAN = 255
"""What containerd reports where there is no exit status (UnknownExitStatus)."""


class Exec(Process):
    """Its calls exclude each other; those of different execs do not."""

    def __init__(
        self,
        id: str,
        urls: StdioUrls,
        spec: dict[str, Any],
        container_id: str,
        bundle: str,
        runtime: OCIRuntime,
        open_stdio: OpenStdio,
        announce: TaskEvents,
        report_kills: Callable[[], None],
    ) -> None:
        super().__init__(id, urls)
        self._spec = spec
        self._container_id = container_id
        self._bundle = bundle
        self._runtime = runtime
        self._open_stdio = open_stdio
        self._announce = announce
        self._report_kills = report_kills
        self._deleted = False
        self._lock = gevent.lock.BoundedSemaphore()

    @property
    def pid_file(self) -> str:
        return f"{self._bundle}/{self.id}.pid"

    def read_io_file(self) -> None:
        """Take the streams that the bundle names, if it does; the file is removed then.

        As for a container, a terminal that anybody asks for is one.
        """
        with self._lock:
            path = f"{self._bundle}/io-{self._container_id}-{self.id}"
            given = off_hub(_take_stdio, path)
            terminal = self.urls.terminal or bool(self._spec.get("terminal"))
            urls = given or self.urls
            self.urls = urls._replace(terminal=urls.terminal or terminal)

    def start(self) -> None:
        """Run it. Raises FailedPrecondition the second time, and the runtime's error."""
        with self._lock:
            if self.status is not Status.CREATED:
                raise FailedPrecondition(
                    f"exec {self.id} is {self.status.name.lower()}, not created"
                )
            try:
                stdio = self._open_stdio(self.urls)
                self.attach(stdio)
                self.child = self._launch(stdio)
            except BaseException:
                if self.stdio is not None:
                    self.stdio.close()
                self._give_up()
                raise
            self.move(Status.RUNNING)
            self._announce.exec_started(self)
            gevent.spawn(self._follow, self.child)

    def kill(self, number: int) -> None:
        """Send a signal. Raises FailedPrecondition before the start, NotFound after the end."""
        if self.child is None and self.exit is None:
            raise FailedPrecondition("process not created")
        if self.child is None or not self.child.signal(number):
            raise NotFound("process already finished")

    def delete(self) -> None:
        """Kill it if it runs, deliver its output and give everything back.

        Raises NotFound when another call did so first. Those who wait get an answer.
        """
        with self._lock:
            if self._deleted:
                raise NotFound(f"can not find the exec by id {self.id}")
            if self.child is None:
                self._give_up()
            else:
                self.child.signal(signal.SIGKILL)
                if self.wait(KILLED_WITHIN) is None:
                    log.error("exec does not end", id=self._container_id, exec=self.id)
            self.close_stdio()
            off_hub(_remove, self.pid_file)
            self._deleted = True

    def _launch(self, stdio: Stdio) -> Child:
        from kuasar_agent.containers import spec  # not needed before the agent serves

        spec.adapt_process(
            self._spec,
            terminal=self.urls.terminal,
            size=self.size,
            id=self._container_id,
            exec=self.id,
        )
        stdin, stdout, stderr = stdio.child_fds
        child = self._runtime.exec(
            self._container_id,
            json.dumps(self._spec).encode(),
            (stdin, stdout, stderr),
            pid_file=self.pid_file,
            console_socket=stdio.console_socket,
        )
        try:
            stdio.start()
        except AgentError:
            child.signal(signal.SIGKILL)
            raise
        return child

    def _follow(self, child: Child) -> None:
        exit = child.wait()
        assert exit is not None
        # It may have been one of them.
        self._report_kills()
        self.stop(exit)
        self._announce.exited(self)

    def _give_up(self) -> None:
        """Nothing will run: let nobody wait for its end."""
        if self.status is not Status.STOPPED:
            self.stop(Exit(0, _NEVER_RAN, time.time_ns()))


def parse_spec(text: bytes) -> dict[str, Any]:
    """An OCI `Process` from the bytes of an Exec request. Raises InvalidArgument."""
    if not text:
        raise InvalidArgument("no spec in request")
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"exec spec: not valid JSON: {error}") from None
    if not isinstance(spec, dict):
        raise InvalidArgument("exec spec: not a JSON object")
    return spec


def _take_stdio(path: str) -> StdioUrls | None:
    urls = load_stdio(path)
    if urls is not None:
        _remove(path)
    return urls


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
