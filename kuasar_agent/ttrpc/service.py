"""Services from protobuf descriptors; only the messages are generated code."""

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
    """Return an rpc's name as a method's: CloseIO is close_io, ExecVMProcess exec_vm_process."""
    return _WORD.sub("_", name).lower()


class Method:
    """An rpc: its kind, its message types and, on a server, its handler."""

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
        streaming: tuple[bool, bool] = (False, False),
        handler: Handler | None = None,
    ) -> None:
        """`streaming` tells of the client's and of the server's messages whether they are many."""
        self.full_name = f"/{service}/{name}"
        self.prefix = request_prefix(service, name)
        self.request_type = request_type
        self.reply_type = reply_type
        self.client_streaming, self.server_streaming = streaming
        self.handler = handler
        self.cancellable = getattr(handler, "__ttrpc_cancellable__", False)

    def parse_request(self, data: bytes) -> Any:
        """Return the request in `data`.

        Raises:
            Internal: `data` does not parse; the text begins as that of Go's server.
        """
        try:
            return self.request_type.FromString(data)
        except DecodeError as error:
            raise Internal(f"ttrpc: error unmarshalling payload: {error}") from None

    def parse_reply(self, data: bytes) -> Any:
        """Return the reply in `data`.

        Raises:
            ProtocolError: `data` does not parse.
        """
        try:
            return self.reply_type.FromString(data)
        except DecodeError as error:
            raise ProtocolError(f"ttrpc: error unmarshalling payload: {error}") from None

    def serialize_reply(self, reply: Message | None) -> bytes:
        """Return a handler's reply, or one message of its stream, in its wire form.

        None stands for google.protobuf.Empty.

        Raises:
            Internal: The message is not of the type that the method declares.
            Unknown: `reply` is None, and the method does not return Empty.
        """
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
    """Return the rpc of a descriptor; `service` replaces the full name of its service."""
    return Method(
        service or descriptor.containing_service.full_name,
        descriptor.name,
        GetMessageClass(descriptor.input_type),
        GetMessageClass(descriptor.output_type),
        (descriptor.client_streaming, descriptor.server_streaming),
        handler,
    )


def methods_of(
    descriptor: ServiceDescriptor, handler: object, name: str | None = None
) -> Mapping[str, Method]:
    """Return a service's rpcs by their names in the .proto file, with the handler's methods."""
    return {
        method.name: method_of(method, name, getattr(handler, snake_case(method.name), None))
        for method in descriptor.methods
    }
