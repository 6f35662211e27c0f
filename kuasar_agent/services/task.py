"""`containerd.task.v2.Task`: decode, call the containers, encode.

https://github.com/containerd/containerd/blob/main/api/runtime/task/v2/shim.proto
"""

from __future__ import annotations

import os
from functools import partial

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError

from kuasar_agent.api import runc_options_pb2, task_pb2
from kuasar_agent.containerd import set_exit
from kuasar_agent.containers.checkpoint import Checkpoint
from kuasar_agent.containers.exec_process import parse_spec
from kuasar_agent.containers.manager import Containers, CreateOptions, CreateRequest
from kuasar_agent.containers.process import Process
from kuasar_agent.containers.runtime import RuntimeOptions
from kuasar_agent.errors import InvalidArgument, Unimplemented
from kuasar_agent.log import get_logger
from kuasar_agent.services.deadlines import deadline_of
from kuasar_agent.stdio.urls import StdioUrls
from kuasar_agent.ttrpc import Context, cancellable

log = get_logger(__name__)

SERVICE = task_pb2.DESCRIPTOR.services_by_name["Task"]
V3_NAME = "containerd.task.v3.Task"
"""The same messages under another name."""


_ProcessRequest = (
    task_pb2.StartRequest
    | task_pb2.WaitRequest
    | task_pb2.KillRequest
    | task_pb2.ResizePtyRequest
    | task_pb2.CloseIORequest
)

_RUNC_OPTIONS = ("containerd.runc.v1.Options", "containerd.linux.runc.CreateOptions")


class TaskService:
    """Handlers of the Task service.

    Every call raises NotFound for a container or an exec that does not exist; the other statuses
    are those of the domain's methods, by `services/statuses.py`.
    """

    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    def create(
        self, ctx: Context, request: task_pb2.CreateTaskRequest
    ) -> task_pb2.CreateTaskResponse:
        """Create a container from the bundle `<state>/<id>`; its program waits for Start.

        AlreadyExists: the id is taken. InvalidArgument: the bundle, a storage or a stream's URL
        makes no sense. DeadlineExceeded: a device or the runtime did not come in time.
        Unimplemented: the request names a checkpoint.
        """
        if request.checkpoint:
            raise Unimplemented("a container cannot be restored from a checkpoint")
        urls = StdioUrls(request.stdin, request.stdout, request.stderr, request.terminal)
        options = decode_options(request.options)
        wanted = CreateRequest(request.id, urls, options, deadline_of(ctx))
        container = self._containers.create(wanted)
        return task_pb2.CreateTaskResponse(pid=container.init.pid)

    def start(self, ctx: Context, request: task_pb2.StartRequest) -> task_pb2.StartResponse:
        """Run the program of a container or of an exec.

        FailedPrecondition: it was started before, or the exec's container does not run.
        """
        process = self._process(request)
        process.start()
        return task_pb2.StartResponse(pid=process.pid)

    def exec(self, ctx: Context, request: task_pb2.ExecProcessRequest) -> Empty:
        """Add an exec, which Start runs.

        AlreadyExists: the container has an exec of that id. FailedPrecondition: the container does
        not run. InvalidArgument: the process is no JSON object.
        """
        container = self._containers.get(request.id)
        urls = StdioUrls(request.stdin, request.stdout, request.stderr, request.terminal)
        container.add_exec(request.exec_id, urls, parse_spec(request.spec.value))
        return Empty()

    def state(self, ctx: Context, request: task_pb2.StateRequest) -> task_pb2.StateResponse:
        """Return the state of a process, with its exit status once it has stopped."""
        container = self._containers.get(request.id)
        process = container.process(request.exec_id)
        reply = task_pb2.StateResponse(
            id=process.id,
            bundle=container.bundle.path,
            pid=process.pid,
            status=process.status.value,  # type: ignore[arg-type]
            stdin=process.urls.stdin,
            stdout=process.urls.stdout,
            stderr=process.urls.stderr,
            terminal=process.urls.terminal,
        )
        set_exit(reply, process.exit)
        return reply

    @cancellable
    def wait(self, ctx: Context, request: task_pb2.WaitRequest) -> task_pb2.WaitResponse:
        """Wait for the exit of a process; a process that is deleted meanwhile is answered, too."""
        reply = task_pb2.WaitResponse()
        set_exit(reply, self._process(request).wait())
        return reply

    def kill(self, ctx: Context, request: task_pb2.KillRequest) -> Empty:
        """Send a signal to a process, or with `all` to every process of the container.

        InvalidArgument: there is no such signal. NotFound: the process has ended already.
        """
        self._process(request).kill(request.signal, everyone=request.all)
        return Empty()

    def pause(self, ctx: Context, request: task_pb2.PauseRequest) -> Empty:
        """Freeze every process of a container. FailedPrecondition: it does not run."""
        self._containers.get(request.id).pause()
        return Empty()

    def resume(self, ctx: Context, request: task_pb2.ResumeRequest) -> Empty:
        """Let a paused container run again. FailedPrecondition: it is not paused."""
        self._containers.get(request.id).resume()
        return Empty()

    def checkpoint(self, ctx: Context, request: task_pb2.CheckpointTaskRequest) -> Empty:
        """Write the state of a container to a directory of the guest.

        Unimplemented: the guest has no criu, or its runtime cannot use it.
        """
        container = self._containers.get(request.id)
        container.checkpoint(decode_checkpoint(request))
        return Empty()

    def pids(self, ctx: Context, request: task_pb2.PidsRequest) -> task_pb2.PidsResponse:
        """Return the pids of a container; an exec's has details of containerd.runc.v1."""
        reply = task_pb2.PidsResponse()
        for pid, exec_id in self._containers.get(request.id).pids().items():
            info = reply.processes.add(pid=pid).info
            if exec_id:
                info.type_url = runc_options_pb2.ProcessDetails.DESCRIPTOR.full_name
                info.value = runc_options_pb2.ProcessDetails(exec_id=exec_id).SerializeToString()
        return reply

    def resize_pty(self, ctx: Context, request: task_pb2.ResizePtyRequest) -> Empty:
        """Set the size of a terminal, also before the process starts; no-op without a terminal."""
        self._process(request).resize(request.width, request.height)
        return Empty()

    def close_io(self, ctx: Context, request: task_pb2.CloseIORequest) -> Empty:
        """End the input of a process after the bytes that the host has sent."""
        process = self._process(request)
        if request.stdin:
            process.close_stdin()
        return Empty()

    def delete(self, ctx: Context, request: task_pb2.DeleteRequest) -> task_pb2.DeleteResponse:
        """Kill a process if it runs, deliver its output and release it; return its exit.

        NotFound: another call deleted it first.
        """
        if request.exec_id:
            process = self._containers.get(request.id).delete_exec(request.exec_id)
        else:
            process = self._containers.delete(request.id).init
        reply = task_pb2.DeleteResponse(pid=process.pid)
        set_exit(reply, process.exit)
        return reply

    def stats(self, ctx: Context, request: task_pb2.StatsRequest) -> task_pb2.StatsResponse:
        """Return the usage of a container in the form of the guest's cgroup version."""
        return task_pb2.StatsResponse(stats=self._containers.get(request.id).cgroup.stats())

    def update(self, ctx: Context, request: task_pb2.UpdateTaskRequest) -> Empty:
        """Change the limits of a container.

        InvalidArgument: the resources make no sense. FailedPrecondition: it has stopped. Unknown:
        the kernel refused a limit; the message names the file.
        """
        # Not needed before the agent serves.
        from kuasar_agent.containers.spec import adapt_resources
        from kuasar_agent.resources import limits_spec

        adapt = partial(adapt_resources, id=request.id)
        resources = limits_spec.parse(request.resources.value, adapt)
        self._containers.get(request.id).update(resources)
        return Empty()

    def connect(self, ctx: Context, request: task_pb2.ConnectRequest) -> task_pb2.ConnectResponse:
        """Return the pids of the agent and of the container's init process."""
        container = self._containers.get(request.id)
        return task_pb2.ConnectResponse(shim_pid=os.getpid(), task_pid=container.init.pid)

    def shutdown(self, ctx: Context, request: task_pb2.ShutdownRequest) -> Empty:
        """Do nothing: containerd asks after every deleted task, and the host stops the machine."""
        return Empty()

    def _process(self, request: _ProcessRequest) -> Process:
        return self._containers.get(request.id).process(request.exec_id)


def decode_options(message: AnyMessage) -> CreateOptions:
    """Decode the runtime options of a Create request; those of another kind of runtime are ignored.

    Raises:
        InvalidArgument: they do not parse.
    """
    if message.type_url.rpartition("/")[2] not in _RUNC_OPTIONS:
        return CreateOptions()
    try:
        options = runc_options_pb2.Options.FromString(message.value)
    except DecodeError as error:
        raise InvalidArgument(f"runtime options: {error}") from None
    if options.systemd_cgroup:
        log.warning("systemd_cgroup ignored: no systemd runs in the guest")
    return CreateOptions(
        binary=options.binary_name,
        root=options.root,
        owner=(options.io_uid, options.io_gid),
        runtime=RuntimeOptions(options.no_pivot_root, options.no_new_keyring),
    )


def decode_checkpoint(request: task_pb2.CheckpointTaskRequest) -> Checkpoint:
    """Decode a Checkpoint request with its options.

    Raises:
        InvalidArgument: the options do not parse.
    """
    options = runc_options_pb2.CheckpointOptions()
    if request.options.type_url.rpartition("/")[2] == options.DESCRIPTOR.full_name:
        try:
            options.MergeFromString(request.options.value)
        except DecodeError as error:
            raise InvalidArgument(f"checkpoint options: {error}") from None
    return Checkpoint(
        path=request.path,
        exit=options.exit,
        open_tcp=options.open_tcp,
        external_unix_sockets=options.external_unix_sockets,
        terminal=options.terminal,
        file_locks=options.file_locks,
        empty_namespaces=tuple(options.empty_namespaces),
        cgroups_mode=options.cgroups_mode,
        work_path=options.work_path,
        parent_path=options.parent_path,
    )
