"""Typed stubs for kuasar_agent/api/events.proto, written by kuasar_agent.ttrpc.generate. DO NOT EDIT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import kuasar_agent.api.events_pb2

if TYPE_CHECKING:
    import google.protobuf.empty_pb2
    from kuasar_agent.ttrpc import Client, ClientStream, Context, Server, ServerStream
    from kuasar_agent.ttrpc.metadata import MetadataLike

__all__ = [
    "EventsHandler",
    "EventsStub",
    "events_stub",
    "register_events",
]


class EventsHandler(Protocol):
    """The handler of containerd.services.events.ttrpc.v1.Events."""

    def forward(
        self, ctx: Context, request: kuasar_agent.api.events_pb2.ForwardRequest, /
    ) -> google.protobuf.empty_pb2.Empty | None: ...


def register_events(
    server: Server, handler: EventsHandler, name: str | None = None
) -> None:
    """Serve containerd.services.events.ttrpc.v1.Events, or with `name` the same service of another name."""
    server.register(kuasar_agent.api.events_pb2.DESCRIPTOR.services_by_name["Events"], handler, name)


class EventsStub(Protocol):
    """containerd.services.events.ttrpc.v1.Events on a client."""

    def forward(
        self,
        request: kuasar_agent.api.events_pb2.ForwardRequest,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> google.protobuf.empty_pb2.Empty: ...


def events_stub(client: Client, name: str | None = None) -> EventsStub:
    """Return the methods of containerd.services.events.ttrpc.v1.Events, or of the same service of another name."""
    return cast("EventsStub", client.stub(kuasar_agent.api.events_pb2.DESCRIPTOR.services_by_name["Events"], name))
