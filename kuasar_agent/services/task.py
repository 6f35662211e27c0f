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
from kuasar_agent.containers.bundle import StdioUrls
from kuasar_agent.containers.checkpoint import Checkpoint
from kuasar_agent.containers.container import RuntimeOptions
from kuasar_agent.containers.execs import parse_spec
from kuasar_agent.containers.manager import Containers, CreateOptions
from kuasar_agent.containers.process import Process
from kuasar_agent.errors import InvalidArgument, Unimplemented
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Exit
from kuasar_agent.ttrpc import Context, cancellable

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
        if request.checkpoint:
            raise Unimplemented("a container cannot be restored from a checkpoint")
        urls = StdioUrls(request.stdin, request.stdout, request.stderr, request.terminal)
        options = decode_options(request.options)
        # The error for a device that never comes has to reach the caller before it hangs up.
        deadline = None if ctx.deadline is None else ctx.deadline - _ANSWER_WITHIN
        container = self._containers.create(request.id, urls, options, deadline)
        return task_pb2.CreateTaskResponse(pid=container.init.pid)

    def start(self, ctx: Context, request: task_pb2.StartRequest) -> task_pb2.StartResponse:
        process = self._containers.get(request.id).start(request.exec_id)
        return task_pb2.StartResponse(pid=process.pid)

    def exec(self, ctx: Context, request: task_pb2.ExecProcessRequest) -> Empty:
        container = self._containers.get(request.id)
        urls = StdioUrls(request.stdin, request.stdout, request.stderr, request.terminal)
        container.add_exec(request.exec_id, urls, parse_spec(request.spec.value))
        return Empty()

    def state(self, ctx: Context, request: task_pb2.StateRequest) -> task_pb2.StateResponse:
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
        if process.exit is not None:
            reply.exit_status = process.exit.status
            reply.exited_at.FromNanoseconds(process.exit.at_ns)
        return reply

    @cancellable
    def wait(self, ctx: Context, request: task_pb2.WaitRequest) -> task_pb2.WaitResponse:
        exit = self._containers.get(request.id).process(request.exec_id).wait()
        assert exit is not None
        reply = task_pb2.WaitResponse(exit_status=exit.status)
        reply.exited_at.FromNanoseconds(exit.at_ns)
        return reply

    def kill(self, ctx: Context, request: task_pb2.KillRequest) -> Empty:
        container = self._containers.get(request.id)
        container.kill(request.signal, everyone=request.all, exec_id=request.exec_id)
        return Empty()

    def pause(self, ctx: Context, request: task_pb2.PauseRequest) -> Empty:
        self._containers.get(request.id).pause()
        return Empty()

    def resume(self, ctx: Context, request: task_pb2.ResumeRequest) -> Empty:
        self._containers.get(request.id).resume()
        return Empty()

    def checkpoint(self, ctx: Context, request: task_pb2.CheckpointTaskRequest) -> Empty:
        container = self._containers.get(request.id)
        container.checkpoint(decode_checkpoint(request))
        return Empty()

    def pids(self, ctx: Context, request: task_pb2.PidsRequest) -> task_pb2.PidsResponse:
        reply = task_pb2.PidsResponse()
        for pid, exec_id in self._containers.get(request.id).pids().items():
            info = reply.processes.add(pid=pid).info
            if exec_id:
                info.type_url = runc_options_pb2.ProcessDetails.DESCRIPTOR.full_name
                info.value = runc_options_pb2.ProcessDetails(exec_id=exec_id).SerializeToString()
        return reply

    def resize_pty(self, ctx: Context, request: task_pb2.ResizePtyRequest) -> Empty:
        process = self._containers.get(request.id).process(request.exec_id)
        process.resize(request.width, request.height)
        return Empty()

    def close_io(self, ctx: Context, request: task_pb2.CloseIORequest) -> Empty:
        process = self._containers.get(request.id).process(request.exec_id)
        if request.stdin:
            process.close_stdin()
        return Empty()

    def delete(self, ctx: Context, request: task_pb2.DeleteRequest) -> task_pb2.DeleteResponse:
        if request.exec_id:
            process = self._containers.get(request.id).delete_exec(request.exec_id)
        else:
            process = self._containers.delete(request.id).init
        return _deleted(process, process.exit)

    def stats(self, ctx: Context, request: task_pb2.StatsRequest) -> task_pb2.StatsResponse:
        return task_pb2.StatsResponse(stats=self._containers.get(request.id).group.stats())

    def update(self, ctx: Context, request: task_pb2.UpdateTaskRequest) -> Empty:
        # Not needed before the agent serves.
        from kuasar_agent.containers.spec import adapt_resources
        from kuasar_agent.resources import limits_spec

        adapt = partial(adapt_resources, id=request.id)
        resources = limits_spec.parse(request.resources.value, adapt)
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


def decode_checkpoint(request: task_pb2.CheckpointTaskRequest) -> Checkpoint:
    """A Checkpoint request with its options. Raises InvalidArgument when they do not parse."""
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


def _deleted(process: Process, exit: Exit | None) -> task_pb2.DeleteResponse:
    reply = task_pb2.DeleteResponse(pid=process.pid)
    if exit is not None:
        reply.exit_status = exit.status
        reply.exited_at.FromNanoseconds(exit.at_ns)
    return reply
