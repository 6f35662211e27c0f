"""The gevent client: any number of concurrent calls over one connection."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from .address import dial
from .client_connection import ClientConnection
from .client_core import ClientCore
from .client_stream import ClientCall, ClientStream
from .limits import Limits
from .metadata import Metadata, MetadataLike
from .service import Method, method_of, snake_case
from .status import InvalidArgument

if TYPE_CHECKING:
    from google.protobuf.descriptor import ServiceDescriptor
    from google.protobuf.message import Message

__all__ = ["Client", "Stub", "connect"]

MethodLike = MethodDescriptor | Method | str


class CallInfo:
    """The parameters of a call, which an interceptor may change."""

    __slots__ = ("metadata", "method", "timeout")

    def __init__(self, method: str, timeout: float | None, metadata: Metadata) -> None:
        self.method = method
        """`/service/Method`."""
        self.timeout = timeout
        """Seconds, or None."""
        self.metadata = metadata


Proceed = Callable[[CallInfo, Any], Any]
ClientInterceptor = Callable[[CallInfo, Any, Proceed], Any]
"""A function called around a call, with its info, the request and the next `Proceed`.

The request is None if it is sent as a stream. `Proceed` returns the reply or, for a streaming call,
its ClientStream.
"""


class Client:
    """A client of one connection, which any number of greenlets may use at once.

    A lost connection is not made again: that needs a new client.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        interceptors: Iterable[ClientInterceptor] = (),
        on_close: Callable[[], object] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Use a connected socket, which the client owns from now on.

        `interceptors` run around every call, the first outermost. `on_close` is called once, when
        the connection is gone for any reason.
        """
        self._interceptors = tuple(reversed(tuple(interceptors)))
        self._methods: dict[MethodDescriptor | str, Method] = {}
        self._connection = ClientConnection(sock, ClientCore(limits), on_close)

    def call(
        self,
        method: MethodLike,
        request: Message,
        timeout: float | None = None,
        metadata: MetadataLike = (),
        *,
        reply_type: type[Message] | None = None,
    ) -> Any:
        """Make a unary call and return the reply.

        `method` is a descriptor, or `/service/Method`, which is looked up among the imported
        protobuf modules unless `reply_type` is given. The server is told the timeout, in seconds.

        Raises:
            StatusError: The status with which the server answered.
            DeadlineExceeded: The timeout has passed.
            ConnectionClosed: The connection is gone.
            ResourceExhausted: The request or the reply is larger than 4 MiB.
            TypeError: The method is not unary, or takes a message of another type.
            InvalidArgument: `method` is not found.
        Blocks: the greenlet.
        """
        rpc = self._resolve(method, request, reply_type)
        if rpc.client_streaming or rpc.server_streaming:
            raise TypeError(f"{rpc.full_name} is not unary")
        if not self._interceptors:
            return self._unary(rpc, request, timeout, metadata)

        def proceed(info: CallInfo, request: Any) -> Any:
            return self._unary(rpc, request, info.timeout, info.metadata)

        return self._intercept(rpc, request, timeout, metadata, proceed)

    def stream(
        self,
        method: MethodLike,
        request: Message | None = None,
        timeout: float | None = None,
        metadata: MetadataLike = (),
    ) -> ClientStream:
        """Start a streaming call; `request` is for server-streaming methods only.

        Raises:
            ConnectionClosed: The connection is gone.
            ResourceExhausted: The request is larger than 4 MiB.
            TypeError: The method is unary, or takes a message of another type.
            InvalidArgument: `method` is not found.
        Blocks: the greenlet, while more than `Limits.outbox_wait` bytes are unsent.
        """
        rpc = self._resolve(method, request, None)
        if not (rpc.client_streaming or rpc.server_streaming):
            raise TypeError(f"{rpc.full_name} is unary")
        if (request is None) != rpc.client_streaming:
            raise TypeError(
                f"{rpc.full_name} takes {'no' if rpc.client_streaming else 'a'} request"
            )

        def proceed(info: CallInfo, request: Any) -> ClientStream:
            return ClientStream(self._start(rpc, request, info.timeout, info.metadata))

        stream = self._intercept(rpc, request, timeout, metadata, proceed)
        assert isinstance(stream, ClientStream)
        return stream

    def stub(self, service: ServiceDescriptor, name: str | None = None) -> Stub:
        """Return the rpcs of a service as methods in snake_case; `name` replaces its full name."""
        return Stub(self, {rpc.name: method_of(rpc, name) for rpc in service.methods})

    def close(self) -> None:
        """Close the connection and end every call; do nothing if it is closed."""
        self._connection.close()

    @property
    def closed(self) -> bool:
        """True once the connection is gone."""
        return self._connection.closed

    @property
    def calls(self) -> int:
        """Calls in progress."""
        return len(self._connection.core.streams)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resolve(
        self, method: MethodLike, request: Message | None, reply_type: type[Message] | None
    ) -> Method:
        if isinstance(method, Method):
            return method
        rpc = self._methods.get(method)
        if rpc is None:
            if reply_type is not None and request is not None and isinstance(method, str):
                service, _, name = method.removeprefix("/").rpartition("/")
                return Method(service, name, type(request), reply_type)
            rpc = method_of(_find(method) if isinstance(method, str) else method)
            self._methods[method] = rpc
        return rpc

    def _intercept(
        self,
        rpc: Method,
        request: Message | None,
        timeout: float | None,
        metadata: MetadataLike,
        proceed: Proceed,
    ) -> Any:
        for interceptor in self._interceptors:
            proceed = _wrap(interceptor, proceed)
        return proceed(CallInfo(rpc.full_name, timeout, Metadata(metadata)), request)

    def _unary(
        self, rpc: Method, request: Message, timeout: float | None, metadata: MetadataLike
    ) -> Any:
        return self._start(rpc, request, timeout, metadata).reply()

    def _start(
        self, rpc: Method, request: Message | None, timeout: float | None, metadata: MetadataLike
    ) -> ClientCall:
        payload = b""
        if request is not None:
            if not isinstance(request, rpc.request_type):
                raise TypeError(f"{rpc.full_name} takes {rpc.request_type.__name__}")
            payload = request.SerializeToString()
        return ClientCall(self._connection, rpc, payload, timeout, metadata)


class Stub:
    """The rpcs of a service on a client: `stub.close_io(request, timeout=..., metadata=...)`.

    `generate` writes typed classes with the same methods.
    """

    def __init__(self, client: Client, methods: Mapping[str, Method]) -> None:
        for name, rpc in methods.items():
            streaming = rpc.client_streaming or rpc.server_streaming
            start = client.stream if streaming else client.call
            setattr(self, snake_case(name), partial(start, rpc))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., Any]: ...


def connect(
    address: str,
    timeout: float | None = None,
    *,
    interceptors: Iterable[ClientInterceptor] = (),
    on_close: Callable[[], object] | None = None,
    limits: Limits | None = None,
) -> Client:
    """Return a client of an address (see `address`), connected within `timeout` seconds.

    Raises:
        InvalidArgument: The address is wrong.
        DeadlineExceeded: The timeout has passed.
        OSError: The server cannot be reached.
    Blocks: the greenlet.
    """
    sock = dial(address, timeout)
    return Client(sock, interceptors=interceptors, on_close=on_close, limits=limits)


def _wrap(interceptor: ClientInterceptor, proceed: Proceed) -> Proceed:
    return lambda info, request: interceptor(info, request, proceed)


def _find(method: str) -> MethodDescriptor:
    service, _, name = method.removeprefix("/").rpartition("/")
    try:
        descriptor = descriptor_pool.Default().FindServiceByName(service)
        return descriptor.methods_by_name[name]
    except KeyError:
        raise InvalidArgument(f"no imported protobuf module has {method}") from None
