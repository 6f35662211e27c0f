"""Services from protobuf descriptors: nothing is generated but the messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from .envelope import request_prefix
from .status import Internal, ProtocolError, Unknown

Handler = Callable[..., Any]

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake_case(name: str) -> str:
    """CloseIO -> close_io, ExecVMProcess -> exec_vm_process."""
    return _WORD.sub("_", name).lower()


class Method:
    """One rpc: its kind, its message types and, on a server, its handler."""

    __slots__ = (
        "cancellable",
        "client_streaming",
        "full_name",
        "handler",
        "prefix",
        "reply_type",
        "request_type",
        "server_streaming",
    )

    def __init__(
        self,
        service: str,
        name: str,
        request_type: type[Message],
        reply_type: type[Message],
        *,
        client_streaming: bool = False,
        server_streaming: bool = False,
        handler: Handler | None = None,
    ) -> None:
        self.full_name = f"/{service}/{name}"
        self.prefix = request_prefix(service, name)
        self.request_type = request_type
        self.reply_type = reply_type
        self.client_streaming = client_streaming
        self.server_streaming = server_streaming
        self.handler = handler
        self.cancellable = getattr(handler, "__ttrpc_cancellable__", False)

    def parse_request(self, data: bytes) -> Message:
        """Raises Internal with Go's words."""
        try:
            return self.request_type.FromString(data)
        except DecodeError as error:
            raise Internal(f"ttrpc: error unmarshalling payload: {error}") from None

    def parse_reply(self, data: bytes) -> Message:
        """Raises ProtocolError."""
        try:
            return self.reply_type.FromString(data)
        except DecodeError as error:
            raise ProtocolError(f"ttrpc: error unmarshalling payload: {error}") from None

    def serialize_reply(self, reply: Message | None) -> bytes:
        """Raises StatusError when it is not what the method declares."""
        if isinstance(reply, self.reply_type):
            return reply.SerializeToString()
        if reply is not None:
            kind = type(reply).__name__
            raise Internal(f"ttrpc: {self.full_name} returned {kind}")
        if self.reply_type.DESCRIPTOR.full_name == "google.protobuf.Empty":
            return b""
        raise Unknown("ttrpc: marshal called with nil")


def method_of(
    descriptor: MethodDescriptor, service: str | None = None, handler: Handler | None = None
) -> Method:
    """An rpc from its descriptor; `service` replaces the full name of its service."""
    return Method(
        service or descriptor.containing_service.full_name,
        descriptor.name,
        GetMessageClass(descriptor.input_type),
        GetMessageClass(descriptor.output_type),
        client_streaming=descriptor.client_streaming,
        server_streaming=descriptor.server_streaming,
        handler=handler,
    )


def methods_of(
    descriptor: ServiceDescriptor, handler: object, name: str | None = None
) -> Mapping[str, Method]:
    """A service's rpcs by their proto names, each with the handler's method for it, if any."""
    return {
        method.name: method_of(method, name, getattr(handler, snake_case(method.name), None))
        for method in descriptor.methods
    }
