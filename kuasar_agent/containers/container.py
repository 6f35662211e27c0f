"""One container: its init process, its execs, and the calls on all of them together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import gevent

from kuasar_agent.blocking import off_hub
from kuasar_agent.containers.bundle import Bundle
from kuasar_agent.containers.checkpoint import Checkpoint
from kuasar_agent.containers.exec_process import ExecProcess
from kuasar_agent.containers.ids import check_exec_id
from kuasar_agent.containers.init_process import InitProcess
from kuasar_agent.containers.process import KILLED_WITHIN, ContainerContext, Process, Status
from kuasar_agent.containers.runtime import RuntimeFailed, RuntimeOptions
from kuasar_agent.errors import (
    AgentError,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unimplemented,
)
from kuasar_agent.log import get_logger
from kuasar_agent.stdio.urls import StdioUrls

if TYPE_CHECKING:
    from kuasar_agent.resources.container_cgroup import ContainerCgroup
    from kuasar_agent.resources.limits_spec import Resources

log = get_logger(__name__)

_KILL_AGAIN = 1.0
"""Seconds after which execs are killed once more: one may have entered the cgroup after a kill."""


class Container:
    """Lifecycle calls exclude each other (`ContainerContext.lifecycle`), with two exceptions.

    Execs are added and started concurrently, and a signal waits for no other call.
    """

    def __init__(self, context: ContainerContext, urls: StdioUrls, options: RuntimeOptions) -> None:
        self.id = context.id
        self.init = InitProcess(urls, context, options, self._end_execs)
        self._context = context
        self._execs: dict[str, ExecProcess] = {}
        """Never read and changed across a wait, so that no lock has to guard it."""
        self._deleted = False
        """Guarded by the exclusive lifecycle lock."""

    @property
    def bundle(self) -> Bundle:
        return self._context.bundle

    @property
    def cgroup(self) -> ContainerCgroup:
        return self._context.cgroup

    def process(self, exec_id: str = "") -> Process:
        """Return the init process, or an exec.

        Raises:
            NotFound: the container has no such exec.
        """
        if not exec_id:
            return self.init
        check_exec_id(exec_id)
        try:
            return self._execs[exec_id]
        except KeyError:
            text = f"can not find the exec by id {exec_id}"
            raise NotFound(text) from None  # contract: Kuasar

    def add_exec(self, exec_id: str, urls: StdioUrls, spec: dict[str, Any]) -> None:
        """Add an exec, which runs once it is started.

        Raises:
            AlreadyExists: the container has an exec of that id.
            FailedPrecondition: the container does not run.
        """
        check_exec_id(exec_id)
        with self._context.lifecycle.shared():
            self.init.require(Status.RUNNING)
            if exec_id in self._execs:
                raise AlreadyExists(f"exec {exec_id}: already exists")
            exec = ExecProcess(exec_id, urls, spec, self._context, self.init)
            self._execs[exec_id] = exec
            try:
                exec.create()
            except BaseException:
                del self._execs[exec_id]
                raise

    def update(self, resources: Resources) -> None:
        """Change the limits.

        Raises:
            FailedPrecondition: the container has stopped.
        """
        with self._context.lifecycle.exclusive():
            if self.init.status is Status.STOPPED:
                raise FailedPrecondition(f"container {self.id} is stopped")
            self.cgroup.update(resources)

    def pause(self) -> None:
        """Freeze every process.

        Raises:
            FailedPrecondition: the container does not run.
        """
        with self._context.lifecycle.exclusive():
            self.init.require(Status.RUNNING)
            try:
                self._context.runtime.pause(self.id)
            except AgentError:
                # The runtime may have frozen some processes, or all.
                self.init.thaw()
                raise
            if self.init.status is Status.RUNNING:
                self.init.move(Status.PAUSED)
                self._context.events.paused()

    def resume(self) -> None:
        """Let a paused container run again.

        Raises:
            FailedPrecondition: the container is not paused.
        """
        with self._context.lifecycle.exclusive():
            self.init.require(Status.PAUSED)
            self._context.runtime.resume(self.id)
            if self.init.status is Status.PAUSED:
                self.init.move(Status.RUNNING)
                self._context.events.resumed()

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write the state of the container to a directory, by the runtime and criu.

        Raises:
            InvalidArgument: the path is not absolute.
            Unimplemented: the guest has no criu, or the runtime cannot use it.
            FailedPrecondition: the container has not started or has stopped.
        """
        import shutil  # not needed before the agent serves

        if not checkpoint.path.startswith("/"):
            raise InvalidArgument(f"checkpoint path {checkpoint.path!r} is not absolute")
        if shutil.which("criu") is None:
            raise Unimplemented("checkpoint needs criu, which the guest does not have")
        runtime = self._context.runtime
        with self._context.lifecycle.exclusive():
            self.init.require(Status.RUNNING, Status.PAUSED)
            work = f"{self.bundle.path}/criu-work"
            try:
                runtime.checkpoint(self.id, checkpoint.flags(work))
            except RuntimeFailed as error:
                if "unknown command" in error.text:
                    raise Unimplemented(f"{runtime.binary} cannot checkpoint") from None
                raise
            finally:
                off_hub(shutil.rmtree, work, ignore_errors=True)
            self._context.events.checkpointed(checkpoint.path)

    def pids(self) -> dict[int, str]:
        """Return the pids in the cgroup, each with the id of its exec, or "".

        The runtime's `ps` reads the same files, at the price of a process. The pid of the init
        process is one of them even after its end: containerd, when it starts, deletes a task
        that has none and loses its exit (core/runtime/v2/shim_load.go).
        """
        execs = {exec.pid: exec.id for exec in self._execs.values()}
        pids = [self.init.pid, *self.cgroup.processes()]
        return {pid: execs.get(pid, "") for pid in pids}

    def delete_exec(self, exec_id: str) -> Process:
        """Kill an exec if it runs, and forget it.

        Raises:
            NotFound: the container has no such exec.
        """
        process = self.process(exec_id)
        process.delete()
        self._execs.pop(exec_id, None)
        return process

    def delete(self) -> None:
        """Kill every process, deliver the output and release every resource.

        Raises:
            NotFound: another call deleted the container first.
        """
        with self._context.lifecycle.exclusive():
            if self._deleted:
                raise NotFound(f"can not find container by id {self.id}")  # contract: Kuasar
            # Concurrently: each may wait for output that no reader takes.
            execs = [gevent.spawn(_delete_quietly, exec) for exec in self._execs.values()]
            self.init.delete()
            gevent.joinall(execs)
            self._execs.clear()
            self.cgroup.close()
            self._deleted = True
            self._context.events.deleted(self.init)

    def _end_execs(self) -> None:
        """Wait until the exit of every exec has been told, so that the container's is the last.

        The kernel kills the execs of a container with a pid namespace of its own; in a shared one
        the agent does. An exec that cannot be killed is given up after `KILLED_WITHIN`.
        """
        deadline = time.monotonic() + KILLED_WITHIN
        while running := [exec for exec in self._execs.values() if exec.is_alive]:
            if running[0].wait_for(_KILL_AGAIN) is not None:
                continue
            if all(exec.has_ended for exec in running):
                # The host takes their output.
                continue
            if time.monotonic() >= deadline:
                log.error("execs outlive their container", id=self.id, count=len(running))
                return
            self.init.kill_the_rest()


def _delete_quietly(exec: ExecProcess) -> None:
    try:
        exec.delete()
    except NotFound:
        pass
