"""One container: a bundle, a runtime that runs it, its first process and its execs."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent

from kuasar_agent.blocking import off_hub
from kuasar_agent.containers.bundle import Bundle
from kuasar_agent.containers.checkpoint import Checkpoint
from kuasar_agent.containers.create_cleanup import CreateCleanup
from kuasar_agent.containers.execs import KILLED_WITHIN, Exec, OpenStdio
from kuasar_agent.containers.ids import check_exec_id
from kuasar_agent.containers.process import Process, Status
from kuasar_agent.containers.runtime import OCIRuntime, RuntimeFailed
from kuasar_agent.containers.shared_lock import SharedLock
from kuasar_agent.errors import (
    AgentError,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unimplemented,
)
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Child
from kuasar_agent.stdio.urls import StdioUrls

if TYPE_CHECKING:
    from kuasar_agent.containers.task_events import TaskEvents
    from kuasar_agent.resources.container_cgroup import ContainerCgroup
    from kuasar_agent.resources.limits_spec import Resources

log = get_logger(__name__)

_ALREADY_GONE = ("not running", "already finished", "no such process")


class RuntimeOptions(NamedTuple):
    """What a Create request may ask of the runtime."""

    no_pivot: bool = False
    no_new_keyring: bool = False


class Container:
    """Lifecycle calls of one container.

    They exclude each other, except that execs are added and started beside each other, and that a
    signal waits for nothing.
    """

    def __init__(
        self,
        id: str,
        bundle: Bundle,
        runtime: OCIRuntime,
        init: Process,
        open_stdio: OpenStdio,
        announce: TaskEvents,
        group: ContainerCgroup,
    ) -> None:
        self.id = id
        self.bundle = bundle
        self.init = init
        self.group = group
        self._runtime = runtime
        self._open_stdio = open_stdio
        self._announce = announce
        self._execs: dict[str, Exec] = {}
        self._starting = False
        self._deleted = False
        self._lifecycle = SharedLock()

    def create(self, options: RuntimeOptions) -> None:
        """Create it in the runtime. Raises the runtime's error; nothing is left behind then."""
        cleanup = CreateCleanup(self._runtime, self.bundle, self.id)
        stdio = self._open_stdio(self.init.urls)
        self.init.attach(stdio)
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
            cleanup.remove()
            raise
        self.init.child = child
        self.group.follow(child)
        self._announce.created(self.bundle.path, self.init)
        gevent.spawn(self._follow, child)

    def process(self, exec_id: str = "") -> Process:
        """The first process, or an exec. Raises NotFound."""
        return self._exec(exec_id) if exec_id else self.init

    def start(self, exec_id: str = "") -> Process:
        """Run the user's program, or an exec that was added.

        Raises FailedPrecondition when it was started already, or an exec's container does not run.
        """
        if not exec_id:
            with self._lifecycle.exclusive():
                self._start_init()
            return self.init
        exec = self._exec(exec_id)
        with self._lifecycle.shared():
            self._require(Status.RUNNING)
            exec.start()
        return exec

    def add_exec(self, exec_id: str, requested: StdioUrls, spec: dict[str, Any]) -> None:
        """Keep what an exec shall be until it is started.

        Raises AlreadyExists, and FailedPrecondition unless the container is RUNNING.
        """
        check_exec_id(exec_id)
        with self._lifecycle.shared():
            self._require(Status.RUNNING)
            if exec_id in self._execs:
                raise AlreadyExists(f"exec {exec_id}: already exists")
            exec = self._execs[exec_id] = Exec(
                exec_id,
                requested,
                spec,
                container_id=self.id,
                bundle=self.bundle.path,
                runtime=self._runtime,
                open_stdio=self._open_stdio,
                announce=self._announce,
                report_kills=self.group.report_kills,
            )
            try:
                exec.read_io_file()
            except BaseException:
                del self._execs[exec_id]
                raise
            self._announce.exec_added(exec_id)

    def kill(self, number: int, *, everyone: bool = False, exec_id: str = "") -> None:
        """Send a signal. Raises NotFound when there is no process left to take it."""
        process = self.process(exec_id)
        if not 0 <= number <= signal.SIGRTMAX:
            raise InvalidArgument(f"invalid signal {number}")
        if isinstance(process, Exec):
            process.kill(number)
            return
        if process.status is Status.STOPPED and not everyone:
            raise NotFound("process already finished")
        self._kill_init(number, everyone)
        if number == signal.SIGKILL and process.status is Status.PAUSED:
            self._thaw()

    def update(self, resources: Resources) -> None:
        """Change the limits. Raises FailedPrecondition once it has stopped."""
        with self._lifecycle.exclusive():
            if self.init.status is Status.STOPPED:
                raise FailedPrecondition(f"container {self.id} is stopped")
            self.group.update(resources)

    def pause(self) -> None:
        """Freeze every process. Raises FailedPrecondition unless it is RUNNING."""
        with self._lifecycle.exclusive():
            self._require(Status.RUNNING)
            try:
                self._runtime.pause(self.id)
            except AgentError:
                # It may have frozen some of them, or all.
                self._thaw()
                raise
            if self.init.status is Status.RUNNING:
                self.init.move(Status.PAUSED)
                self._announce.paused()

    def resume(self) -> None:
        """Let a paused container run again. Raises FailedPrecondition unless it is PAUSED."""
        with self._lifecycle.exclusive():
            self._require(Status.PAUSED)
            self._runtime.resume(self.id)
            if self.init.status is Status.PAUSED:
                self.init.move(Status.RUNNING)
                self._announce.resumed()

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write its state to a directory, by the runtime and criu.

        Raises Unimplemented where one of them cannot.
        """
        import shutil  # not needed before the agent serves

        if not checkpoint.path.startswith("/"):
            raise InvalidArgument(f"checkpoint path {checkpoint.path!r} is not absolute")
        if shutil.which("criu") is None:
            raise Unimplemented("checkpoint needs criu, which the guest does not have")
        with self._lifecycle.exclusive():
            self._require(Status.RUNNING, Status.PAUSED)
            work = f"{self.bundle.path}/criu-work"
            try:
                self._runtime.checkpoint(self.id, checkpoint.flags(work))
            except RuntimeFailed as error:
                if "unknown command" in error.text:
                    raise Unimplemented(f"{self._runtime.binary} cannot checkpoint") from None
                raise
            finally:
                off_hub(shutil.rmtree, work, ignore_errors=True)
            self._announce.checkpointed(checkpoint.path)

    def pids(self) -> dict[int, str]:
        """The processes in its cgroup, by pid, with the id of the exec that one is, or "".

        The runtime's `ps` reads the same files, at the price of a process.
        """
        execs = {exec.pid: exec.id for exec in self._execs.values()}
        return {pid: execs.get(pid, "") for pid in self.group.processes()}

    def delete_exec(self, exec_id: str) -> Process:
        """Kill an exec if it runs, and forget it. Raises NotFound."""
        exec = self._exec(exec_id)
        exec.delete()
        self._execs.pop(exec_id, None)
        return exec

    def delete(self) -> None:
        """Kill what runs, deliver the output that is there, give everything back.

        Raises NotFound when another call did so first.
        """
        with self._lifecycle.exclusive():
            if self._deleted:
                raise NotFound(f"can not find container by id {self.id}")
            if self.init.status is Status.PAUSED:
                self._kill_the_rest()
                self._thaw()
            self._runtime.delete(self.id)
            if self.init.wait(KILLED_WITHIN) is None:
                log.error("container's process does not end", id=self.id, pid=self.init.pid)
            # All at the same time: each may wait for output that nobody takes.
            execs = [gevent.spawn(_delete_quietly, exec) for exec in self._execs.values()]
            self.init.close_stdio()
            gevent.joinall(execs)
            self._execs.clear()
            self.group.close()
            self._deleted = True
            self._announce.deleted(self.init)

    def _exec(self, exec_id: str) -> Exec:
        check_exec_id(exec_id)
        try:
            return self._execs[exec_id]
        except KeyError:
            raise NotFound(f"can not find the exec by id {exec_id}") from None

    def _require(self, *statuses: Status) -> None:
        if self.init.status not in statuses:
            raise FailedPrecondition(
                f"container {self.id} is {self.init.status.name.lower()}, "
                f"not {' or '.join(status.name.lower() for status in statuses)}"
            )

    def _start_init(self) -> None:
        self._require(Status.CREATED)
        self._starting = True
        try:
            self._runtime.start(self.id)
            # The program may have ended, and its exit been recorded, while the command returned.
            if self.init.status is Status.CREATED:
                self.init.move(Status.RUNNING)
            self._announce.started(self.init)
        finally:
            self._starting = False
            if self.init.exit is not None:
                self._announce.exited(self.init)

    def _follow(self, child: Child) -> None:
        """Record the exit of the first process once nothing of the container runs any more."""
        exit = child.wait()
        assert exit is not None
        if self.bundle.shares_pids:
            self._kill_the_rest()
        self.group.report_kills()
        self.init.stop(exit)
        log.info("container exited", id=self.id, pid=exit.pid, status=exit.status)
        # Not before the start that is under way was announced.
        if not self._starting:
            self._announce.exited(self.init)

    def _kill_init(self, number: int, everyone: bool) -> None:
        try:
            self._runtime.kill(self.id, number, everyone=everyone)
        except RuntimeFailed as error:
            text = error.text.lower()
            if any(words in text for words in _ALREADY_GONE):
                raise NotFound("process already finished") from None
            if "does not exist" in text:
                raise NotFound("no such container") from None
            raise

    def _kill_the_rest(self) -> None:
        try:
            self._runtime.kill(self.id, signal.SIGKILL, everyone=True)
        except AgentError as error:
            log.debug("kill of the container's other processes", id=self.id, error=error)

    def _thaw(self) -> None:
        """Let processes run that may be frozen: with cgroup v1 those do not even die."""
        try:
            self._runtime.resume(self.id)
        except AgentError as error:
            log.debug("nothing to resume", id=self.id, error=error)


def _delete_quietly(exec: Exec) -> None:
    try:
        exec.delete()
    except NotFound:
        pass
