"""The gevent server: accepts connections and runs handlers, each in a greenlet of its own."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from gevent.event import Event as Flag

from .call import Call, Interceptor, ToStatus
from .core import Event, Events
from .limits import Limits
from .listener import AnySocket, Listener
from .peer import Peer, Policy, peer_of
from .server_core import ServerCore
from .service import Method, methods_of
from .status import ConnectionClosed, ResourceExhausted
from .transport import Transport
from .workers import Job, Workers

if TYPE_CHECKING:
    from google.protobuf.descriptor import ServiceDescriptor

    from .stream import Stream

logger = logging.getLogger(__name__)


class ServerClosed(ConnectionClosed):
    """`serve` ended because the server was shut down or closed."""

    def __init__(self) -> None:
        super().__init__("ttrpc: server closed")


class Server:
    """Serves registered services on any number of listening sockets.

    `interceptors` run around every call, the first outermost; `intercept` replaces them.
    `strict_ids=False` admits clients whose request ids are out of order. `max_concurrent` bounds
    the handlers in progress for all connections together, those included that outlive their
    caller. `authorize` is asked before anything is read from a new connection. `to_status` makes a
    status of an exception that a handler raised, or returns None for one that it does not know.
    """

    def __init__(
        self,
        interceptors: Iterable[Interceptor] = (),
        *,
        strict_ids: bool = True,
        max_concurrent: int = 4096,
        max_connections: int = 1024,
        authorize: Policy | None = None,
        to_status: ToStatus | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.intercept(interceptors)
        self.workers = Workers()
        self.to_status = to_status
        self.running = 0
        """Handlers in progress."""
        self._strict_ids = strict_ids
        self._max_concurrent = max_concurrent
        self._max_connections = max_connections
        self._authorize = authorize
        self._limits = limits or Limits()
        self._services: dict[str, Mapping[str, Method]] = {}
        self._listeners: set[Listener] = set()
        self._connections: set[_Connection] = set()
        self._received = self._sent = 0
        self._stopping = False
        self._closed = Flag()
        self._quiet = Flag()

    def intercept(self, interceptors: Iterable[Interceptor]) -> None:
        """Run these around every call that begins from now on, the first outermost."""
        # Each call wraps its handler from the inside out.
        self.interceptors = tuple(reversed(tuple(interceptors)))

    def register(
        self, descriptor: ServiceDescriptor, handler: object, name: str | None = None
    ) -> None:
        """Serve a service by `handler`'s methods, named as the rpcs are but in snake_case.

        `name` replaces the service's full name. An rpc that the handler lacks is Unimplemented.
        """
        self._services[name or descriptor.full_name] = methods_of(descriptor, handler, name)

    def start(self, listener: AnySocket) -> None:
        """Accept connections from now on; the server owns the socket. Raises ServerClosed."""
        if self._stopping:
            raise ServerClosed
        self._listeners.add(Listener(listener, self._accept))

    def serve(self, listener: AnySocket) -> None:
        """The same, blocking until the server is closed. Always ends with ServerClosed."""
        self.start(listener)
        self._closed.wait()
        raise ServerClosed

    def shutdown(self, timeout: float | None = None) -> bool:
        """Accept nothing more, let the calls in progress end, then close.

        Idle connections are closed at once, the others when their last reply is sent; new calls
        on them are refused with 14. True when all ended within `timeout` seconds.
        """
        self._stop()
        for connection in list(self._connections):
            connection.drain()
        ended = self._is_quiet() or self._quiet.wait(timeout)
        self.close()
        return ended

    def close(self) -> None:
        """Close everything now and cancel every call; `serve` returns."""
        self._stop()
        for connection in list(self._connections):
            connection.close()
        self._closed.set()

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    def admit(self) -> bool:
        """Count one more handler, if there is room."""
        if self.running >= self._max_concurrent:
            return False
        self.running += 1
        return True

    def release(self) -> None:
        """A handler has ended."""
        self.running -= 1
        if self._stopping and self._is_quiet():
            self._quiet.set()

    def traffic(self) -> tuple[int, int]:
        """Bytes received and sent, over all connections that there were."""
        live = self._connections
        received = self._received + sum(connection.received for connection in live)
        return received, self._sent + sum(connection.sent for connection in live)

    def forget(self, connection: _Connection) -> None:
        """A connection is closed."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._received += connection.received
            self._sent += connection.sent
        if self._stopping and self._is_quiet():
            self._quiet.set()

    def _is_quiet(self) -> bool:
        return not self.running and not self._connections

    def _stop(self) -> None:
        self._stopping = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _accept(self, sock: socket.socket) -> None:
        if len(self._connections) >= self._max_connections:
            logger.warning("%d connections already: refusing one", len(self._connections))
            sock.close()
            return
        try:
            peer = peer_of(sock)
            if self._authorize is not None and not self._authorize(sock, peer):
                logger.warning("ttrpc: invalid credentials: refusing %s", peer)
                sock.close()
                return
        except BaseException as error:
            # One connection's trouble must not end the accept loop.
            logger.exception("cannot tell who connected: refusing")
            sock.close()
            if isinstance(error, KeyboardInterrupt):
                raise
            return
        core = ServerCore(self._services, strict_ids=self._strict_ids, limits=self._limits)
        self._connections.add(_Connection(sock, core, self, peer))


class _Connection(Transport):
    """One client of the server."""

    core: ServerCore

    def __init__(self, sock: socket.socket, core: ServerCore, server: Server, peer: Peer) -> None:
        self.peer = peer
        self._server = server
        super().__init__(sock, core)

    @property
    def interceptors(self) -> tuple[Interceptor, ...]:
        return self._server.interceptors

    @property
    def to_status(self) -> ToStatus | None:
        return self._server.to_status

    def drain(self) -> None:
        """Refuse new calls; close when none is left and everything is sent."""
        self.core.draining = True
        self.close_when_idle = True
        self.ask_flush()

    def call_ended(self, stream: Stream) -> None:
        """A handler has ended and its result is queued."""
        self.core.done(stream)
        self.resume_reading()
        self._server.release()
        self.ask_flush()

    def _handle(self, events: Events) -> None:
        calls: list[Job] = []
        for event, stream in events:
            if event is Event.OPENED:
                if self._server.admit():
                    calls.append(Call(stream, self))
                else:
                    self.core.fail(stream, ResourceExhausted("ttrpc: too many calls in progress"))
                    self.core.done(stream)
            elif stream.owner is None:
                # Refused a moment ago; the rest of what it sent came in the same read.
                continue
            elif event is Event.FAILED:
                stream.owner.cancel()
            else:
                stream.owner.wake()
        if calls:
            self._server.workers.run(calls)

    def _on_closed(self) -> None:
        for stream in self.core.closed():
            stream.owner.cancel()
        self._server.forget(self)
