"""Typed stubs for kuasar_agent/api/sandbox.proto, written by kuasar_agent.ttrpc.generate. DO NOT EDIT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import kuasar_agent.api.sandbox_pb2

if TYPE_CHECKING:
    import google.protobuf.empty_pb2
    import kuasar_agent.api.events_pb2
    from kuasar_agent.ttrpc import Client, ClientStream, Context, Server, ServerStream
    from kuasar_agent.ttrpc.metadata import MetadataLike

__all__ = [
    "SandboxServiceHandler",
    "SandboxServiceStub",
    "register_sandbox_service",
    "sandbox_service_stub",
]


class SandboxServiceHandler(Protocol):
    """The handler of grpc.SandboxService."""

    def update_interfaces(
        self, ctx: Context, request: kuasar_agent.api.sandbox_pb2.UpdateInterfacesRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...

    def update_routes(
        self, ctx: Context, request: kuasar_agent.api.sandbox_pb2.UpdateRoutesRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...

    def check(
        self, ctx: Context, request: kuasar_agent.api.sandbox_pb2.CheckRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...

    def exec_vm_process(
        self, ctx: Context, request: kuasar_agent.api.sandbox_pb2.ExecVMProcessRequest, /
    ) -> kuasar_agent.api.sandbox_pb2.ExecVMProcessResponse: ...

    def sync_clock(
        self, ctx: Context, request: kuasar_agent.api.sandbox_pb2.SyncClockPacket, /
    ) -> kuasar_agent.api.sandbox_pb2.SyncClockPacket: ...

    def get_events(
        self, ctx: Context, request: google.protobuf.empty_pb2.Empty, /
    ) -> kuasar_agent.api.events_pb2.Envelope: ...

    def setup_sandbox(
        self, ctx: Context, request: kuasar_agent.api.sandbox_pb2.SetupSandboxRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...


def register_sandbox_service(
    server: Server, handler: SandboxServiceHandler, name: str | None = None
) -> None:
    """Serve grpc.SandboxService, or with `name` the same service of another name."""
    server.register(kuasar_agent.api.sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"], handler, name)


class SandboxServiceStub(Protocol):
    """grpc.SandboxService on a client."""

    def update_interfaces(
        self,
        request: kuasar_agent.api.sandbox_pb2.UpdateInterfacesRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...

    def update_routes(
        self,
        request: kuasar_agent.api.sandbox_pb2.UpdateRoutesRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...

    def check(
        self,
        request: kuasar_agent.api.sandbox_pb2.CheckRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...

    def exec_vm_process(
        self,
        request: kuasar_agent.api.sandbox_pb2.ExecVMProcessRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.sandbox_pb2.ExecVMProcessResponse: ...

    def sync_clock(
        self,
        request: kuasar_agent.api.sandbox_pb2.SyncClockPacket,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.sandbox_pb2.SyncClockPacket: ...

    def get_events(
        self,
        request: google.protobuf.empty_pb2.Empty,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.events_pb2.Envelope: ...

    def setup_sandbox(
        self,
        request: kuasar_agent.api.sandbox_pb2.SetupSandboxRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...


def sandbox_service_stub(client: Client, name: str | None = None) -> SandboxServiceStub:
    """Return the methods of grpc.SandboxService, or of the same service of another name."""
    return cast("SandboxServiceStub", client.stub(kuasar_agent.api.sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"], name))
