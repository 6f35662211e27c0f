"""A call on the server: its context and the run of its handler."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from gevent.hub import get_hub
from greenlet import GreenletExit, greenlet

from .context import Context
from .errors import status_of
from .server_stream import ServerStream, StreamOwner
from .status import DeadlineExceeded, StatusError, Unimplemented
from .stream import ENDED
from .transport import LONGEST_TIMER

if TYPE_CHECKING:
    from gevent._types import _TimerWatcher
    from google.protobuf.message import Message

    from .peer import Peer
    from .service import Method
    from .stream import Stream

logger = logging.getLogger(__name__)

Proceed = Callable[[Context, Any], Any]
"""The inner interceptors and the handler: takes the context and the request, returns the reply."""

Interceptor = Callable[[Context, Any, Proceed], Any]
"""A function called around a handler, with the context, the request and the next `Proceed`.

The request is None if the method takes a stream; the reply is None if it returns a stream.
"""

ToStatus = Callable[[Exception], StatusError | None]
"""A function that converts a handler's exception to a status; None if it does not know it."""


class CallOwner(StreamOwner, Protocol):
    """The connection of a call, as far as the call uses it; see `server.ServerConnection`."""

    peer: Peer

    @property
    def interceptors(self) -> tuple[Interceptor, ...]: ...

    @property
    def to_status(self) -> ToStatus | None: ...

    def call_ended(self, stream: Stream) -> None: ...


class Call(Context):
    """One call and the run of its handler, which gets it as its context: one object per call."""

    __slots__ = ("_connection", "_method", "_replied", "_stream", "_timer", "_user", "_worker")

    def __init__(self, stream: Stream, connection: CallOwner) -> None:
        method: Method = stream.method
        super().__init__(method.full_name, metadata=stream.metadata, peer=connection.peer)
        self._method = method
        self._stream = stream
        self._connection = connection
        self._replied = False
        self._user: ServerStream | None = None
        self._worker: greenlet | None = None
        self._timer: _TimerWatcher | None = None
        stream.owner = self
        if stream.timeout_nano:
            self._start_timer(stream.timeout_nano / 1e9)

    def run(self, worker: greenlet) -> None:
        """Run the handler to its end and send its reply or its error. Raises nothing."""
        stream = self._stream
        if not (stream.state is ENDED or self._connection.closed):
            self._worker = worker
            try:
                self._succeed(self._invoke())
            except BaseException as error:
                self._fail(error)
            # From here on `cancel` must not kill the greenlet: it waits for the reply to leave.
            self._worker = None
            if self._undelivered is not None:
                self._watch_reply(self._undelivered)
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
        self._connection.call_ended(stream)

    def cancel(self) -> None:
        """Tell the handler that the client has stopped waiting. Hub only."""
        super().cancel()
        self.wake()
        if self._method.cancellable and self._worker is not None:
            self._worker.throw(GreenletExit)

    def wake(self) -> None:
        """Wake the handler if it waits for a message. Hub only."""
        if self._user is not None:
            self._user.wake()

    def _start_timer(self, seconds: float) -> None:
        self.deadline = monotonic() + seconds
        if seconds < LONGEST_TIMER:
            self._timer = get_hub().loop.timer(seconds)
            self._timer.start(self._on_deadline)

    def _on_deadline(self) -> None:
        self._connection.core.fail(self._stream, DeadlineExceeded("context deadline exceeded"))
        self._connection.ask_flush()
        self.cancel()

    def _invoke(self) -> Any:
        method = self._method
        if method.handler is None:
            raise Unimplemented(f"{method.full_name} is not supported")
        request = None
        if not method.client_streaming:
            request = method.parse_request(self._stream.payload)
            self._stream.payload = b""
        proceed: Proceed = self._handle
        for interceptor in self._connection.interceptors:
            proceed = _wrap(interceptor, proceed)
        return proceed(self, request)

    def _handle(self, ctx: Context, request: Message | None) -> Any:
        try:
            return self._call_handler(ctx, request)
        except StatusError:
            raise
        except Exception as error:
            to_status = self._connection.to_status
            status = to_status(error) if to_status is not None else None
            if status is None:
                raise
            raise status from error

    def _call_handler(self, ctx: Context, request: Message | None) -> Any:
        method = self._method
        handler = method.handler
        assert handler is not None
        if not (method.client_streaming or method.server_streaming):
            return handler(ctx, request)
        self._user = ServerStream(self._stream, self._connection, self.deadline)
        if method.client_streaming:
            return handler(ctx, self._user)
        return handler(ctx, request, self._user)

    def _succeed(self, reply: Any) -> None:
        if self.deadline is not None and monotonic() >= self.deadline:
            raise DeadlineExceeded("context deadline exceeded")
        core = self._connection.core
        if self._method.server_streaming:
            core.finish(self._stream)
        else:
            reply = self._method.serialize_reply(reply)
            self._replied = not (self._stream.state is ENDED or self._connection.closed)
            core.reply(self._stream, reply)

    def _watch_reply(self, undelivered: Callable[[], None]) -> None:
        self._connection.ask_flush()
        if not (self._replied and self._connection.drain_stream(self._stream.id)):
            undelivered()

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, (StatusError, GreenletExit)):
            logger.error("%s failed", self.method, exc_info=error)
        if isinstance(error, KeyboardInterrupt):
            get_hub().handle_error(self, *sys.exc_info())
        self._connection.core.fail(self._stream, status_of(error))


def _wrap(interceptor: Interceptor, proceed: Proceed) -> Proceed:
    return lambda ctx, request: interceptor(ctx, request, proceed)
