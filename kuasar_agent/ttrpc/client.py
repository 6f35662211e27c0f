"""The gevent client: any number of concurrent calls on one connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gevent
import gevent.event
from gevent.socket import SHUT_RDWR, socket
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from kuasar_agent.ttrpc.address import dial
from kuasar_agent.ttrpc.connection import ClientConnection, ResponseReceived
from kuasar_agent.ttrpc.naming import message_class, snake_case
from kuasar_agent.ttrpc.server import READ_SIZE
from kuasar_agent.ttrpc.status import DeadlineExceeded, Internal, Unavailable


class ConnectionClosed(Unavailable):
    """The connection ended before the answer came, or before the call was made."""

    def __init__(self) -> None:
        super().__init__("ttrpc: closed")


def connect(address: str, timeout: float = 10.0) -> Client:
    """Dial an address; see `kuasar_agent.ttrpc.address` for its forms and what is raised."""
    return Client(dial(address, timeout))


class Client:
    """Calls over a connected socket, which belongs to the client from now on."""

    def __init__(self, peer: socket) -> None:
        self._socket = peer
        self._core = ClientConnection()
        self._waiting: dict[int, gevent.event.AsyncResult[bytes]] = {}
        self._out: list[bytes] = []
        self._wake = gevent.event.Event()
        self._open = True
        self._writer = gevent.spawn(self._write)
        self._reader = gevent.spawn(self._read)

    def call(
        self,
        method: MethodDescriptor,
        request: Message,
        *,
        service: str | None = None,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Message:
        """Make a unary call and return the reply; `timeout` is in seconds.

        Raises the StatusError of the peer, DeadlineExceeded, or ConnectionClosed.
        """
        if not self._open or self._core.exhausted:
            raise ConnectionClosed
        stream, frame = self._core.call(
            service or method.containing_service.full_name,
            method.name,
            request.SerializeToString(),
            max(1, int(timeout * 1e9)) if timeout is not None else 0,
            metadata,
        )
        result = self._waiting[stream] = gevent.event.AsyncResult()
        self._out.append(frame)
        self._wake.set()
        try:
            # Unlike get(), wait() raises no Timeout that could be taken for one of the caller's.
            result.wait(timeout=timeout)
            if not result.ready():
                raise DeadlineExceeded("context deadline exceeded")
            payload = result.get() or b""
        finally:
            self._core.forget(stream)
            self._waiting.pop(stream, None)
        try:
            return message_class(method.output_type).FromString(payload)
        except DecodeError as error:
            raise Internal(f"ttrpc: error unmarshalling payload: {error}") from None

    def stub(self, service: ServiceDescriptor, name: str | None = None) -> Stub:
        """An object with a method for every rpc of the service, in snake_case."""
        return Stub(self, service, name)

    def close(self) -> None:
        """End the connection; calls in flight raise ConnectionClosed."""
        try:
            self._socket.shutdown(SHUT_RDWR)
        except OSError:
            pass
        self._reader.join()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        try:
            while data := self._socket.recv(READ_SIZE):
                for event in self._core.receive(data):
                    self._deliver(event)
        except OSError:
            pass
        finally:
            self._open = False
            self._writer.kill()
            self._socket.close()
            for result in list(self._waiting.values()):
                result.set_exception(ConnectionClosed())

    def _deliver(self, event: ResponseReceived) -> None:
        result = self._waiting.get(event.stream)
        if result is None:
            return
        if event.error is not None:
            result.set_exception(event.error)
        else:
            result.set(event.payload)

    def _write(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            data = b"".join(self._out)
            self._out.clear()
            try:
                self._socket.sendall(data)
            except OSError:
                self._socket.shutdown(SHUT_RDWR)
                return


class Stub:
    """Calls one service: `stub.create(request, timeout=…)`."""

    def __init__(self, client: Client, service: ServiceDescriptor, name: str | None) -> None:
        self._client = client
        self._name = name or service.full_name
        self._methods = {snake_case(method.name): method for method in service.methods}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = self._methods.get(name)
        if method is None:
            raise AttributeError(f"{self._name} has no method {name}")

        def call(request: Message, **options: Any) -> Message:
            return self._client.call(method, request, service=self._name, **options)

        return call
