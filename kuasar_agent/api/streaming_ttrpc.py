"""Typed stubs for kuasar_agent/api/streaming.proto, written by kuasar_agent.ttrpc.generate. DO NOT EDIT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import kuasar_agent.api.streaming_pb2

if TYPE_CHECKING:
    import google.protobuf.any_pb2
    from kuasar_agent.ttrpc import Client, ClientStream, Context, Server, ServerStream
    from kuasar_agent.ttrpc.metadata import MetadataLike

__all__ = [
    "StreamingHandler",
    "StreamingStub",
    "register_streaming",
    "streaming_stub",
]


class StreamingHandler(Protocol):
    """The handler of containerd.services.streaming.v1.Streaming."""

    def stream(
        self, ctx: Context, stream: ServerStream[google.protobuf.any_pb2.Any, google.protobuf.any_pb2.Any], /
    ) -> None: ...


def register_streaming(
    server: Server, handler: StreamingHandler, name: str | None = None
) -> None:
    """Serve containerd.services.streaming.v1.Streaming, or with `name` the same service of another name."""
    server.register(kuasar_agent.api.streaming_pb2.DESCRIPTOR.services_by_name["Streaming"], handler, name)


class StreamingStub(Protocol):
    """containerd.services.streaming.v1.Streaming on a client."""

    def stream(
        self,
        *,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> ClientStream[google.protobuf.any_pb2.Any, google.protobuf.any_pb2.Any]: ...


def streaming_stub(client: Client, name: str | None = None) -> StreamingStub:
    """Return the methods of containerd.services.streaming.v1.Streaming, or of the same service of another name."""
    return cast("StreamingStub", client.stub(kuasar_agent.api.streaming_pb2.DESCRIPTOR.services_by_name["Streaming"], name))
