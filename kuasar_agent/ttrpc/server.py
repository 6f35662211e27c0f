"""The gevent server: accepts connections and runs each handler in a greenlet."""

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

__all__ = ["Server", "ServerClosed"]

logger = logging.getLogger(__name__)


class ServerClosed(ConnectionClosed):
    """The end of `Server.serve`: the server was shut down or closed."""

    def __init__(self) -> None:
        super().__init__("ttrpc: server closed")


class Server:
    """A server of registered services on any number of listening sockets."""

    def __init__(
        self,
        interceptors: Iterable[Interceptor] = (),
        *,
        strict_ids: bool = True,
        authorize: Policy | None = None,
        to_status: ToStatus | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Make a server that does not listen yet.

        `interceptors` run around every call, the first outermost; `intercept` replaces them.
        `strict_ids=False` accepts the ids of requests out of order, as some Rust clients send them.
        `authorize` is asked before anything is read from a new connection. `to_status` converts an
        exception of a handler to a status, or returns None if it does not know it.
        """
        self.intercept(interceptors)
        self.workers = Workers()
        self.to_status = to_status
        self.running = 0
        """Handlers that run."""
        self._strict_ids = strict_ids
        self._authorize = authorize
        self._limits = limits or Limits()
        self._services: dict[str, Mapping[str, Method]] = {}
        self._listeners: set[Listener] = set()
        self._connections: set[ServerConnection] = set()
        self._received = self._sent = 0
        self._stopping = False
        self._closed = Flag()
        self._quiet = Flag()

    def intercept(self, interceptors: Iterable[Interceptor]) -> None:
        """Run `interceptors` around every call that begins from now on, the first outermost."""
        # Call wraps its handler from the inside out.
        self.interceptors = tuple(reversed(tuple(interceptors)))

    def register(
        self,
        descriptor: ServiceDescriptor,
        handler: object,
        name: str | None = None,
        *,
        partial: bool = False,
    ) -> None:
        """Serve a service with the methods of `handler`, named as the rpcs but in snake_case.

        `name` replaces the service's full name. With `partial`, calls of rpcs that the handler
        lacks are answered with Unimplemented.

        Raises:
            TypeError: The handler lacks methods, and `partial` is false.
        """
        methods = methods_of(descriptor, handler, name)
        missing = [rpc for rpc, method in methods.items() if method.handler is None]
        if missing and not partial:
            raise TypeError(
                f"{type(handler).__name__} has no method for {', '.join(missing)}"
                f" of {descriptor.full_name}"
            )
        self._services[name or descriptor.full_name] = methods

    def start(self, listener: AnySocket) -> None:
        """Accept connections on a listening socket, which the server owns from now on.

        Raises:
            ServerClosed: The server was shut down or closed.
        """
        if self._stopping:
            raise ServerClosed
        self._listeners.add(Listener(listener, self._accept))

    def serve(self, listener: AnySocket) -> None:
        """Accept connections on a listening socket until the server is closed.

        Raises:
            ServerClosed: Always, at the end.
        Blocks: the greenlet.
        """
        self.start(listener)
        self._closed.wait()
        raise ServerClosed

    def shutdown(self, timeout: float | None = None) -> bool:
        """Stop accepting, let the calls in progress end, then close.

        Idle connections are closed at once, the others when their last reply is sent; new calls on
        them are answered with Unavailable. Returns whether every call ended within `timeout`
        seconds.

        Blocks: the greenlet.
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

    @property
    def calls(self) -> int:
        """Calls that have not ended on the wire, of all open connections."""
        return sum(len(connection.core.streams) for connection in self._connections)

    def traffic(self) -> tuple[int, int]:
        """Return the bytes received and sent, including those of closed connections."""
        live = self._connections
        received = self._received + sum(connection.received for connection in live)
        return received, self._sent + sum(connection.sent for connection in live)

    def buffered(self) -> tuple[int, int]:
        """Return the bytes received that handlers have not taken, and those not sent yet.

        Each received message counts 64 bytes more than its size.
        """
        cores = [connection.core for connection in self._connections]
        return sum(core.inbox_size for core in cores), sum(core.outbox.size for core in cores)

    def admit(self) -> bool:
        """Count one more handler, if there is room. For connections."""
        if self.running >= self._limits.handlers:
            return False
        self.running += 1
        return True

    def release(self) -> None:
        """Count one handler less. For connections."""
        self.running -= 1
        if self._stopping and self._is_quiet():
            self._quiet.set()

    def forget(self, connection: ServerConnection) -> None:
        """Forget a connection that is closed. For connections."""
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

    def _accept(self, sock: socket.socket, _address: object) -> None:
        if len(self._connections) >= self._limits.connections:
            logger.warning("refused a connection: %d are open", len(self._connections))
            sock.close()
            return
        try:
            peer = peer_of(sock)
            if self._authorize is not None and not self._authorize(sock, peer):
                logger.warning("ttrpc: invalid credentials: refused %s", peer)
                sock.close()
                return
        except BaseException as error:
            # An error of one connection must not end the accept loop.
            logger.exception("refused a connection: cannot authorize its peer")
            sock.close()
            if isinstance(error, KeyboardInterrupt):
                raise
            return
        core = ServerCore(self._services, strict_ids=self._strict_ids, limits=self._limits)
        self._connections.add(ServerConnection(sock, core, self, peer))


class ServerConnection(Transport):
    """One client: a transport that runs a handler for each call."""

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
        """Refuse new calls; close once no call is left and everything is sent."""
        self.core.draining = True
        self.close_when_idle = True
        self.ask_flush()

    def call_ended(self, stream: Stream) -> None:
        """Release a call whose handler has ended, and send its result, which is queued."""
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
                # Refused above; the same read brought more frames of the stream.
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
