"""`containerd.task.v2.Task`: decode, call the containers, encode.

https://github.com/containerd/containerd/blob/main/api/runtime/task/v2/shim.proto
"""

from __future__ import annotations

import os

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError

from kuasar_agent.api import runc_options_pb2, task_pb2
from kuasar_agent.containers.bundle import StdioUrls
from kuasar_agent.containers.container import RuntimeOptions
from kuasar_agent.containers.ids import check_exec_id
from kuasar_agent.containers.manager import Containers, CreateOptions
from kuasar_agent.containers.process import Process
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Exit
from kuasar_agent.ttrpc import Context, InvalidArgument, NotFound, cancellable

log = get_logger(__name__)

SERVICE = task_pb2.DESCRIPTOR.services_by_name["Task"]
V3_NAME = "containerd.task.v3.Task"
"""The same messages under another name."""

_ANSWER_WITHIN = 1.0

_RUNC_OPTIONS = ("containerd.runc.v1.Options", "containerd.linux.runc.CreateOptions")


class TaskService:
    """Handlers of the Task service."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    def create(
        self, ctx: Context, request: task_pb2.CreateTaskRequest
    ) -> task_pb2.CreateTaskResponse:
        urls = StdioUrls(request.stdin, request.stdout, request.stderr, request.terminal)
        options = decode_options(request.options)
        # The error for a device that never comes has to reach the caller before it hangs up.
        deadline = None if ctx.deadline is None else ctx.deadline - _ANSWER_WITHIN
        container = self._containers.create(request.id, urls, options, deadline)
        return task_pb2.CreateTaskResponse(pid=container.init.pid)

    def start(self, ctx: Context, request: task_pb2.StartRequest) -> task_pb2.StartResponse:
        container = self._containers.get(request.id)
        _only_init(request.exec_id)
        container.start()
        return task_pb2.StartResponse(pid=container.init.pid)

    def state(self, ctx: Context, request: task_pb2.StateRequest) -> task_pb2.StateResponse:
        container = self._containers.get(request.id)
        _only_init(request.exec_id)
        process = container.init
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
        if process.exit is not None:
            reply.exit_status = process.exit.status
            reply.exited_at.FromNanoseconds(process.exit.at_ns)
        return reply

    @cancellable
    def wait(self, ctx: Context, request: task_pb2.WaitRequest) -> task_pb2.WaitResponse:
        process = self._containers.get(request.id).init
        _only_init(request.exec_id)
        exit = process.wait()
        assert exit is not None
        reply = task_pb2.WaitResponse(exit_status=exit.status)
        reply.exited_at.FromNanoseconds(exit.at_ns)
        return reply

    def kill(self, ctx: Context, request: task_pb2.KillRequest) -> Empty:
        container = self._containers.get(request.id)
        _only_init(request.exec_id)
        container.kill(request.signal, everyone=request.all)
        return Empty()

    def resize_pty(self, ctx: Context, request: task_pb2.ResizePtyRequest) -> Empty:
        container = self._containers.get(request.id)
        _only_init(request.exec_id)
        container.resize(request.width, request.height)
        return Empty()

    def close_io(self, ctx: Context, request: task_pb2.CloseIORequest) -> Empty:
        container = self._containers.get(request.id)
        _only_init(request.exec_id)
        if request.stdin:
            container.close_stdin()
        return Empty()

    def delete(self, ctx: Context, request: task_pb2.DeleteRequest) -> task_pb2.DeleteResponse:
        if request.exec_id:
            self._containers.get(request.id)
            _only_init(request.exec_id)
        process = self._containers.delete(request.id).init
        return _deleted(process, process.exit)

    def stats(self, ctx: Context, request: task_pb2.StatsRequest) -> task_pb2.StatsResponse:
        return task_pb2.StatsResponse(stats=self._containers.get(request.id).group.stats())

    def update(self, ctx: Context, request: task_pb2.UpdateTaskRequest) -> Empty:
        from kuasar_agent.containers import resource_spec  # not needed before the agent serves

        resources = resource_spec.parse(request.resources.value)
        self._containers.get(request.id).update(resources)
        return Empty()

    def connect(self, ctx: Context, request: task_pb2.ConnectRequest) -> task_pb2.ConnectResponse:
        container = self._containers.get(request.id)
        return task_pb2.ConnectResponse(shim_pid=os.getpid(), task_pid=container.init.pid)

    def shutdown(self, ctx: Context, request: task_pb2.ShutdownRequest) -> Empty:
        """The virtual machine is the host's to stop: containerd asks after every deleted task."""
        return Empty()


def decode_options(message: AnyMessage) -> CreateOptions:
    """The runtime options of a Create request; options of another kind of runtime count for none.

    Raises InvalidArgument when they do not parse.
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


def _only_init(exec_id: str) -> None:
    """Raises NotFound for any exec: none can have been added."""
    if exec_id:
        check_exec_id(exec_id)
        raise NotFound(f"can not find the exec by id {exec_id}")


def _deleted(process: Process, exit: Exit | None) -> task_pb2.DeleteResponse:
    reply = task_pb2.DeleteResponse(pid=process.pid)
    if exit is not None:
        reply.exit_status = exit.status
        reply.exited_at.FromNanoseconds(exit.at_ns)
    return reply
