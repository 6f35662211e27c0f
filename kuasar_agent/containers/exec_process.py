"""An exec: another process in a running container, with streams of its own."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from typing import Any

import gevent
import gevent.lock

from kuasar_agent.blocking import off_hub
from kuasar_agent.containers.bundle import load_stdio, merge_stdio, parse_json
from kuasar_agent.containers.process import ContainerContext, Process, Status
from kuasar_agent.errors import FailedPrecondition, InvalidArgument, NotFound
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Child, Exit
from kuasar_agent.stdio.stdio import Stdio
from kuasar_agent.stdio.urls import StdioUrls

log = get_logger(__name__)

_NEVER_RAN = 255
"""The exit status that containerd reports where there is none (UnknownExitStatus)."""


class ExecProcess(Process):
    """Calls on one exec are serialized; different execs start and end concurrently."""

    kind = "exec"

    def __init__(
        self,
        id: str,
        urls: StdioUrls,
        spec: dict[str, Any],
        context: ContainerContext,
        init: Process,
    ) -> None:
        """`spec` is an OCI `Process`."""
        super().__init__(id, urls, context)
        self._spec = spec
        """Guarded by `_lock`, as is the next one."""
        self._deleted = False
        self._init = init
        self._lock = gevent.lock.BoundedSemaphore()

    @property
    def pid_file(self) -> str:
        return f"{self._context.bundle.path}/{self.id}.pid"

    def create(self) -> None:
        """Take the streams that the bundle's io file names, if there is one, and remove the file.

        The process has a terminal if the io file, the request or the spec asks for one.
        """
        with self._lock:
            path = f"{self._context.bundle.path}/io-{self._context.id}-{self.id}"
            self.urls = merge_stdio(self.urls, off_hub(_take_stdio, path), self._spec)
            self._context.events.exec_added(self.id)

    def start(self) -> None:
        with self._context.lifecycle.shared():
            self._init.require(Status.RUNNING)
            with self._lock:
                self.require(Status.CREATED)
                try:
                    self._launch(self._exec)
                except BaseException:
                    if self.child is not None:
                        self.child.signal(signal.SIGKILL)
                        self.child = None
                    self._give_up()
                    raise
                assert self.child is not None
                self.move(Status.RUNNING)
                self._context.events.exec_started(self)
                gevent.spawn(self._follow, self.child)

    def _kill(self, number: int, everyone: bool) -> None:
        """An exec has no others: `everyone` changes nothing, as in containerd's own shim."""
        if self.child is None and self.exit is None:
            raise FailedPrecondition("process not created")  # contract: containerd
        if self.child is None or not self.child.signal(number):
            raise NotFound("process already finished")  # contract: containerd

    def delete(self) -> None:
        with self._lock:
            if self._deleted:
                raise NotFound(f"can not find the exec by id {self.id}")  # contract: Kuasar
            if self.child is None:
                self._give_up()
            else:
                self.child.signal(signal.SIGKILL)
                self._await_end(self.child)
            self._close_stdio()
            off_hub(_remove, self.pid_file)
            self._deleted = True

    def _exec(self, stdio: Stdio) -> Child:
        from kuasar_agent.containers import spec  # not needed before the agent serves

        spec.adapt_process(
            self._spec,
            terminal=self.urls.terminal,
            size=self.size,
            id=self._context.id,
            exec=self.id,
        )
        stdin, stdout, stderr = stdio.child_fds
        return self._context.runtime.exec(
            self._context.id,
            json.dumps(self._spec).encode(),
            (stdin, stdout, stderr),
            pid_file=self.pid_file,
            console_socket=stdio.console_socket,
        )

    def _follow(self, child: Child) -> None:
        exit = child.wait()
        # The OOM killer may have ended it.
        self._context.cgroup.report_kills()
        self._settle()
        self._stop(exit)
        self._context.events.exited(self)

    def _give_up(self) -> None:
        """Answer the calls that wait for the end of a process that will never run."""
        if self.status is not Status.STOPPED:
            self._stop(Exit(0, _NEVER_RAN, time.time_ns()))


def parse_spec(text: bytes) -> dict[str, Any]:
    """Decode the OCI `Process` of an Exec request.

    Raises:
        InvalidArgument: it is empty or no JSON object.
    """
    if not text:
        raise InvalidArgument("no spec in request")
    spec = parse_json(text, "exec spec")
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
