"""A call on the server: its context, its stream and the run of its handler."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from gevent.hub import get_hub
from greenlet import GreenletExit, greenlet

from .context import Context
from .errors import status_of
from .status import DeadlineExceeded, StatusError, Unimplemented
from .transport import LONGEST_TIMER, Parked

if TYPE_CHECKING:
    from gevent._types import _TimerWatcher
    from google.protobuf.message import Message

    from .peer import Peer
    from .server_core import ServerCore
    from .service import Method
    from .stream import Stream

logger = logging.getLogger(__name__)

Proceed = Callable[[Context, Any], Any]
"""The rest of the way to the handler: takes the context and the request, returns the reply."""

Interceptor = Callable[[Context, Any, Proceed], Any]
"""Called around a handler with what `Proceed` takes and the next `Proceed`.

The request is None where it arrives as a stream, the reply where it leaves as one.
"""

ToStatus = Callable[[Exception], StatusError | None]
"""Makes a status of an exception that a handler raised; None for one that it does not know."""


class CallOwner(Protocol):
    """What a call needs of the connection that it came over."""

    core: ServerCore
    peer: Peer
    closed: bool

    @property
    def interceptors(self) -> tuple[Interceptor, ...]: ...

    @property
    def to_status(self) -> ToStatus | None: ...

    def ask_flush(self) -> None: ...

    def flush(self) -> None: ...

    def wait_for_room(self, deadline: float | None) -> None: ...

    def wait_until_sent(self, stream_id: int) -> bool: ...

    def resume_reading(self) -> None: ...

    def call_ended(self, stream: Stream) -> None: ...


class Call(Context):
    """Also the handler's context, to spare an object per call."""

    __slots__ = ("_connection", "_method", "_parked", "_replied", "_stream", "_timer", "_worker")

    def __init__(self, stream: Stream, connection: CallOwner) -> None:
        method: Method = stream.method
        self.method = method.full_name
        self.peer = connection.peer
        self.is_cancelled = False
        self._metadata = stream.metadata
        self._cancel_event = None
        self._undelivered = None
        self._method = method
        self._stream = stream
        self._replied = False
        self._connection = connection
        self._worker: greenlet | None = None
        self._timer: _TimerWatcher | None = None
        self._parked: Parked | None = None
        stream.owner = self
        if stream.timeout_nano:
            self._start_timer(stream.timeout_nano / 1e9)
        else:
            self.deadline = None

    def run(self, worker: greenlet) -> None:
        """Run the handler to its end and send what comes of it. Raises nothing."""
        stream = self._stream
        if not (stream.ended or self._connection.closed):
            self._worker = worker
            try:
                self._succeed(self._invoke())
            except BaseException as error:
                self._fail(error)
            # Nobody may kill what follows: a reply on its way has to be seen off.
            self._worker = None
            if self._undelivered is not None:
                self._see_off(self._undelivered)
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
        self._connection.call_ended(stream)

    def cancel(self) -> None:
        """Hub only: the call is over for its caller."""
        Context.cancel(self)
        self.wake()
        if self._method.cancellable and self._worker is not None:
            self._worker.throw(GreenletExit)

    def wake(self) -> None:
        """Hub only: something changed for whoever waits in `receive`."""
        if self._parked is not None:
            self._parked.wake()

    def receive(self) -> bytes | None:
        """The next message, None at the end; raises the call's error once all were taken."""
        stream = self._stream
        while True:
            message = self._connection.core.take(stream)
            if message is not None:
                self._connection.resume_reading()
                return message
            if stream.error is not None:
                raise stream.error
            if stream.remote_closed:
                return None
            if self._parked is None:
                self._parked = Parked()
            self._parked.park()

    def send(self, payload: bytes) -> None:
        """Send one message, after waiting for room if need be."""
        self._connection.wait_for_room(self.deadline)
        self._connection.core.send(self._stream, payload)
        self._connection.ask_flush()

    def flush(self) -> bool:
        """Wait until the kernel has all that was sent; False when the connection went first."""
        self._connection.flush()
        return self._connection.wait_until_sent(self._stream.id)

    def withdraw(self, count: int) -> int:
        """Take back those of the last `count` messages that are not on their way to the peer,
        and will not be; returns how many these are."""
        outbox = self._connection.core.outbox
        if self._connection.closed:
            # A part of a message is of no use to the peer, and the rest will never follow.
            return min(count, outbox.count(self._stream.id))
        return outbox.take_back(self._stream.id, count)

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
        if method.client_streaming:
            return handler(ctx, ServerStream(self))
        if method.server_streaming:
            return handler(ctx, request, ServerStream(self))
        return handler(ctx, request)

    def _succeed(self, reply: Any) -> None:
        if self.deadline is not None and monotonic() >= self.deadline:
            raise DeadlineExceeded("context deadline exceeded")
        core = self._connection.core
        if self._method.server_streaming:
            core.finish(self._stream)
        else:
            reply = self._method.serialize_reply(reply)
            self._replied = not (self._stream.ended or self._connection.closed)
            core.reply(self._stream, reply)

    def _see_off(self, undelivered: Callable[[], None]) -> None:
        self._connection.ask_flush()
        if not (self._replied and self.flush()):
            undelivered()

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, (StatusError, GreenletExit)):
            logger.error("%s failed", self.method, exc_info=error)
        if isinstance(error, KeyboardInterrupt):
            get_hub().handle_error(self, *sys.exc_info())
        self._connection.core.fail(self._stream, status_of(error))


def _wrap(interceptor: Interceptor, proceed: Proceed) -> Proceed:
    return lambda ctx, request: interceptor(ctx, request, proceed)


class ServerStream:
    """The streaming side of a call, as its handler sees it. Iterating receives to the end."""

    __slots__ = ("_call", "_method")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._method = call._method

    def recv(self) -> Any:
        """The next message, or None when the client has sent all.

        Raises ConnectionClosed, DeadlineExceeded or StreamFull when the call ended otherwise.
        """
        data = self._call.receive()
        return None if data is None else self._method.parse_request(data)

    def __iter__(self) -> Iterator[Any]:
        while (message := self.recv()) is not None:
            yield message

    def send(self, message: Message) -> None:
        """Send one message; waits while too much is unsent.

        Raises StreamClosed when the call has ended, DeadlineExceeded when it ends meanwhile,
        ResourceExhausted for more than 4 MiB.
        """
        self._call.send(self._method.serialize_reply(message))

    def send_encoded(self, message: bytes) -> None:
        """The same for a message that is in its wire form already."""
        self._call.send(message)

    def flush(self) -> bool:
        """Wait until the kernel has all that was sent; False when the connection went first."""
        return self._call.flush()

    def withdraw(self, count: int) -> int:
        """Take back those of the last `count` messages that are not on their way to the client,
        and will not be; returns how many these are."""
        return self._call.withdraw(count)
