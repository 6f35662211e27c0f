"""Typed stubs for kuasar_agent/api/task.proto, written by kuasar_agent.ttrpc.generate. DO NOT EDIT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import kuasar_agent.api.task_pb2

if TYPE_CHECKING:
    import google.protobuf.empty_pb2
    from kuasar_agent.ttrpc import Client, ClientStream, Context, Server, ServerStream
    from kuasar_agent.ttrpc.metadata import MetadataLike

__all__ = [
    "TaskHandler",
    "TaskStub",
    "register_task",
    "task_stub",
]


class TaskHandler(Protocol):
    """The handler of containerd.task.v2.Task."""

    def state(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.StateRequest, /
    ) -> kuasar_agent.api.task_pb2.StateResponse: ...

    def create(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.CreateTaskRequest, /
    ) -> kuasar_agent.api.task_pb2.CreateTaskResponse: ...

    def start(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.StartRequest, /
    ) -> kuasar_agent.api.task_pb2.StartResponse: ...

    def delete(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.DeleteRequest, /
    ) -> kuasar_agent.api.task_pb2.DeleteResponse: ...

    def pids(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.PidsRequest, /
    ) -> kuasar_agent.api.task_pb2.PidsResponse: ...

    def pause(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.PauseRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...

    def resume(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.ResumeRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...

    def checkpoint(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.CheckpointTaskRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...

    def kill(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.KillRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...

    def exec(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.ExecProcessRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...

    def resize_pty(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.ResizePtyRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...

    def close_io(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.CloseIORequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...

    def update(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.UpdateTaskRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...

    def wait(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.WaitRequest, /
    ) -> kuasar_agent.api.task_pb2.WaitResponse: ...

    def stats(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.StatsRequest, /
    ) -> kuasar_agent.api.task_pb2.StatsResponse: ...

    def connect(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.ConnectRequest, /
    ) -> kuasar_agent.api.task_pb2.ConnectResponse: ...

    def shutdown(
        self, ctx: Context, request: kuasar_agent.api.task_pb2.ShutdownRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...


def register_task(
    server: Server, handler: TaskHandler, name: str | None = None
) -> None:
    """Serve containerd.task.v2.Task, or with `name` the same service of another name."""
    server.register(kuasar_agent.api.task_pb2.DESCRIPTOR.services_by_name["Task"], handler, name)


class TaskStub(Protocol):
    """containerd.task.v2.Task on a client."""

    def state(
        self,
        request: kuasar_agent.api.task_pb2.StateRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.task_pb2.StateResponse: ...

    def create(
        self,
        request: kuasar_agent.api.task_pb2.CreateTaskRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.task_pb2.CreateTaskResponse: ...

    def start(
        self,
        request: kuasar_agent.api.task_pb2.StartRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.task_pb2.StartResponse: ...

    def delete(
        self,
        request: kuasar_agent.api.task_pb2.DeleteRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.task_pb2.DeleteResponse: ...

    def pids(
        self,
        request: kuasar_agent.api.task_pb2.PidsRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.task_pb2.PidsResponse: ...

    def pause(
        self,
        request: kuasar_agent.api.task_pb2.PauseRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...

    def resume(
        self,
        request: kuasar_agent.api.task_pb2.ResumeRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...

    def checkpoint(
        self,
        request: kuasar_agent.api.task_pb2.CheckpointTaskRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...

    def kill(
        self,
        request: kuasar_agent.api.task_pb2.KillRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...

    def exec(
        self,
        request: kuasar_agent.api.task_pb2.ExecProcessRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...

    def resize_pty(
        self,
        request: kuasar_agent.api.task_pb2.ResizePtyRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...

    def close_io(
        self,
        request: kuasar_agent.api.task_pb2.CloseIORequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...

    def update(
        self,
        request: kuasar_agent.api.task_pb2.UpdateTaskRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...

    def wait(
        self,
        request: kuasar_agent.api.task_pb2.WaitRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.task_pb2.WaitResponse: ...

    def stats(
        self,
        request: kuasar_agent.api.task_pb2.StatsRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.task_pb2.StatsResponse: ...

    def connect(
        self,
        request: kuasar_agent.api.task_pb2.ConnectRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.task_pb2.ConnectResponse: ...

    def shutdown(
        self,
        request: kuasar_agent.api.task_pb2.ShutdownRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...


def task_stub(client: Client, name: str | None = None) -> TaskStub:
    """Return the methods of containerd.task.v2.Task, or of the same service of another name."""
    return cast("TaskStub", client.stub(kuasar_agent.api.task_pb2.DESCRIPTOR.services_by_name["Task"], name))
