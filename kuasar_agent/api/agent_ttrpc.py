"""Typed stubs for kuasar_agent/api/agent.proto, written by kuasar_agent.ttrpc.generate. DO NOT EDIT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import kuasar_agent.api.agent_pb2

if TYPE_CHECKING:
    import google.protobuf.empty_pb2
    from kuasar_agent.ttrpc import Client, ClientStream, Context, Server, ServerStream
    from kuasar_agent.ttrpc.metadata import MetadataLike

__all__ = [
    "AgentHandler",
    "AgentStub",
    "agent_stub",
    "register_agent",
]


class AgentHandler(Protocol):
    """The handler of kuasar.agent.v1.Agent."""

    def metrics(
        self, ctx: Context, request: google.protobuf.empty_pb2.Empty, /
    ) -> kuasar_agent.api.agent_pb2.MetricsResponse: ...

    def leaks(
        self, ctx: Context, request: google.protobuf.empty_pb2.Empty, /
    ) -> kuasar_agent.api.agent_pb2.LeaksResponse: ...

    def boot(
        self, ctx: Context, request: google.protobuf.empty_pb2.Empty, /
    ) -> kuasar_agent.api.agent_pb2.BootResponse: ...

    def dump(
        self, ctx: Context, request: google.protobuf.empty_pb2.Empty, /
    ) -> kuasar_agent.api.agent_pb2.DumpResponse: ...


def register_agent(
    server: Server, handler: AgentHandler, name: str | None = None
) -> None:
    """Serve kuasar.agent.v1.Agent, or with `name` the same service of another name."""
    server.register(kuasar_agent.api.agent_pb2.DESCRIPTOR.services_by_name["Agent"], handler, name)


class AgentStub(Protocol):
    """kuasar.agent.v1.Agent on a client."""

    def metrics(
        self,
        request: google.protobuf.empty_pb2.Empty,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.agent_pb2.MetricsResponse: ...

    def leaks(
        self,
        request: google.protobuf.empty_pb2.Empty,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.agent_pb2.LeaksResponse: ...

    def boot(
        self,
        request: google.protobuf.empty_pb2.Empty,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.agent_pb2.BootResponse: ...

    def dump(
        self,
        request: google.protobuf.empty_pb2.Empty,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> kuasar_agent.api.agent_pb2.DumpResponse: ...


def agent_stub(client: Client, name: str | None = None) -> AgentStub:
    """Return the methods of kuasar.agent.v1.Agent, or of the same service of another name."""
    return cast("AgentStub", client.stub(kuasar_agent.api.agent_pb2.DESCRIPTOR.services_by_name["Agent"], name))
