"""The gevent server: a reader and a writer greenlet per connection, a greenlet per call.

The reader never waits for the writer. What the peer does not read is queued up to a limit; a peer
beyond it loses its connection, and nobody else notices.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gevent
import gevent.event
from gevent.socket import SHUT_RDWR, socket
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from kuasar_agent.ttrpc.connection import RequestReceived, ServerConnection
from kuasar_agent.ttrpc.context import Context, Metadata, is_cancellable
from kuasar_agent.ttrpc.naming import message_class, snake_case
from kuasar_agent.ttrpc.status import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    StatusError,
    Unimplemented,
    Unknown,
)
from kuasar_agent.ttrpc.translate import to_status

READ_SIZE = 256 * 1024
OUT_LIMIT = 32 << 20
"""Bytes queued for a peer that does not read, before its connection is closed."""

# accept(2) fails while descriptors are short; the listener waits and tries again (seconds).
_BACKOFF_FIRST, _BACKOFF_LAST = 0.01, 1.0

Authorize = Callable[[socket, Any], bool]
"""Decides from an accepted socket and its address whether the peer may call."""

OnError = Callable[[str, BaseException], None]
"""Told about exceptions of handlers that are no status, with the method's name."""

Handler = Callable[[Context, Any], Message]


class _Method(NamedTuple):
    handler: Handler | None
    request: type[Message]
    cancellable: bool


class Server:
    """Serves registered services on any number of listening sockets."""

    def __init__(
        self,
        *,
        strict_ids: bool = True,
        max_concurrent: int = 4096,
        authorize: Authorize | None = None,
        on_error: OnError | None = None,
    ) -> None:
        """`max_concurrent` bounds the open calls of one connection."""
        self.strict_ids = strict_ids
        self.max_concurrent = max_concurrent
        self._authorize = authorize
        self._on_error = on_error or _log_error
        self._services: dict[str, dict[str, _Method]] = {}
        self._acceptors: set[gevent.Greenlet[..., None]] = set()
        self._connections: set[_Connection] = set()

    def register(
        self, service: ServiceDescriptor, handler: object, name: str | None = None
    ) -> None:
        """Serve `service` from the methods of `handler`, named in snake_case.

        `name` stands for the service's full name. A method that `handler` lacks is Unimplemented.
        """
        self._services[name or service.full_name] = {
            method.name: _bind(method, handler) for method in service.methods
        }

    def start(self, listener: socket) -> None:
        """Accept connections in a greenlet; the socket belongs to the server from now on."""
        acceptor = gevent.spawn(self._accept, listener)
        self._acceptors.add(acceptor)
        acceptor.rawlink(self._acceptors.discard)

    def close(self) -> None:
        """Stop listening and end every connection, with its calls cancelled."""
        gevent.killall(list(self._acceptors))
        for connection in list(self._connections):
            connection.close()

    def find(self, service: str, method: str) -> _Method:
        """Raises Unimplemented with the texts of the Go server."""
        methods = self._services.get(service)
        if methods is None:
            raise Unimplemented(f"service {service}")
        found = methods.get(method)
        if found is None:
            raise Unimplemented(f"method {method}")
        return found

    def report(self, method: str, error: BaseException) -> None:
        self._on_error(method, error)

    def _accept(self, listener: socket) -> None:
        pause = _BACKOFF_FIRST
        try:
            while True:
                try:
                    peer, address = listener.accept()
                except OSError:
                    gevent.sleep(pause)
                    pause = min(pause * 2, _BACKOFF_LAST)
                    continue
                pause = _BACKOFF_FIRST
                if not self._admits(peer, address):
                    peer.close()
                    continue
                connection = _Connection(self, peer, address)
                self._connections.add(connection)
                reader = gevent.spawn(connection.run)
                reader.rawlink(partial(self._forget, connection))
        finally:
            listener.close()

    def _admits(self, peer: socket, address: object) -> bool:
        try:
            return self._authorize is None or self._authorize(peer, address)
        except Exception as error:
            self.report("authorize", error)
            return False

    def _forget(self, connection: _Connection, _: object) -> None:
        self._connections.discard(connection)


class _Call(NamedTuple):
    context: Context
    greenlet: gevent.Greenlet[..., None]
    cancellable: bool
    timer: Any


class _Connection:
    def __init__(self, server: Server, peer: socket, address: object) -> None:
        self._server = server
        self._socket = peer
        self._address = address
        self._core = ServerConnection(strict_ids=server.strict_ids)
        self._calls: dict[int, _Call] = {}
        self._queue: list[bytes] = []
        self._queued = 0
        self._wake = gevent.event.Event()
        self._open = True

    def run(self) -> None:
        """Read until the connection ends, in whatever way; then cancel what it had asked for."""
        writer = gevent.spawn(self._write)
        try:
            while data := self._socket.recv(READ_SIZE):
                for event in self._core.receive(data):
                    self._begin(event)
                self._flush()
                # recv() gives way only when it has to wait, which a flooding peer never lets it.
                gevent.sleep(0)
        except OSError:
            pass
        finally:
            self._open = False
            self._cancel_all()
            writer.kill()
            self._socket.close()

    def close(self) -> None:
        """End the connection; `run` wakes up and cleans up."""
        try:
            self._socket.shutdown(SHUT_RDWR)
        except OSError:
            pass

    def _begin(self, event: RequestReceived) -> None:
        stream, request = event
        try:
            if stream in self._calls:
                # Expired, but its handler still runs and would answer for the new call.
                raise InvalidArgument("StreamID cannot be re-used and must increment")
            method = self._server.find(request.service, request.method)
            if method.handler is None:
                raise Unimplemented(f"/{request.service}/{request.method} is not supported")
            if len(self._calls) >= self._server.max_concurrent:
                raise ResourceExhausted(f"more than {self._server.max_concurrent} open calls")
            if request.timeout_nano < 0:
                raise DeadlineExceeded("context deadline exceeded")
            message = _parse(method.request, request.payload)
        except StatusError as error:
            self._core.fail(stream, error)
            return
        timeout = request.timeout_nano / 1e9 or None
        context = Context(
            f"/{request.service}/{request.method}",
            Metadata([(pair.key, pair.value) for pair in request.metadata]),
            self._address,
            time.monotonic() + timeout if timeout else None,
        )
        timer = None
        if timeout:
            timer = gevent.get_hub().loop.timer(timeout)
            timer.start(self._expire, stream)
        greenlet = gevent.spawn(self._handle, stream, method.handler, context, message)
        self._calls[stream] = _Call(context, greenlet, method.cancellable, timer)
        # A link is called for a greenlet that is killed before it starts, too.
        greenlet.rawlink(partial(self._end, stream))

    def _handle(self, stream: int, handler: Handler, context: Context, message: Message) -> None:
        try:
            reply = handler(context, message)
            if reply is None:
                raise Unknown("ttrpc: marshal called with nil")
            self._core.respond(stream, reply.SerializeToString())
        except gevent.GreenletExit:
            pass
        except (Exception, gevent.Timeout) as error:
            if not isinstance(error, StatusError):
                self._server.report(context.method, error)
            self._core.fail(stream, to_status(error))
        finally:
            self._flush()

    def _expire(self, stream: int) -> None:
        """The deadline passed: answer now; the handler's own answer comes too late."""
        call = self._calls.get(stream)
        if call is None:
            return
        self._core.fail(stream, DeadlineExceeded("context deadline exceeded"))
        self._flush()
        _cancel(call)

    def _end(self, stream: int, _: object) -> None:
        call = self._calls.pop(stream, None)
        if call is not None and call.timer is not None:
            call.timer.close()

    def _cancel_all(self) -> None:
        for call in list(self._calls.values()):
            _cancel(call)

    def _flush(self) -> None:
        """Queue what the core has for the peer."""
        data = self._core.to_send()
        if not data or not self._open:
            return
        self._queue.append(data)
        self._queued += len(data)
        if self._queued > OUT_LIMIT:
            self.close()
        self._wake.set()

    def _write(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            data = b"".join(self._queue)
            self._queue.clear()
            try:
                self._socket.sendall(data)
            except OSError:
                self.close()
                return
            self._queued -= len(data)


def _bind(method: MethodDescriptor, handler: object) -> _Method:
    function = getattr(handler, snake_case(method.name), None)
    cancellable = function is not None and is_cancellable(function)
    return _Method(function, message_class(method.input_type), cancellable)


def _parse(kind: type[Message], payload: bytes) -> Message:
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise Internal(f"ttrpc: error unmarshalling payload: {error}") from None


def _cancel(call: _Call) -> None:
    call.context.cancelled.set()
    if call.cancellable:
        call.greenlet.kill(block=False)


def _log_error(method: str, error: BaseException) -> None:
    logging.getLogger(__name__).error("%s failed", method, exc_info=error)
