"""A call on the client: it waits for its reply or its messages."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic

from gevent.hub import get_hub

from .metadata import Metadata, MetadataLike
from .status import (
    Cancelled,
    ConnectionClosed,
    DeadlineExceeded,
    StreamClosed,
)
from .stream import ENDED, OPEN
from .transport import LONGEST_TIMER, Parked
from .types import Received, Sent

if TYPE_CHECKING:
    from gevent._types import _TimerWatcher

    from .client_connection import ClientConnection
    from .service import Method

__all__ = ["ClientStream"]

LARGEST_TIMEOUT = (1 << 63) - 1
"""Of the field `timeout_nano`."""


class ClientCall(Parked):
    """A call in progress, where its greenlet waits."""

    __slots__ = ("_connection", "_deadline", "_timer", "rpc", "stream")

    def __init__(
        self,
        connection: ClientConnection,
        rpc: Method,
        payload: bytes,
        timeout: float | None,
        metadata: MetadataLike,
    ) -> None:
        super().__init__()
        self.rpc = rpc
        self._connection = connection
        self._deadline: float | None = None
        self._timer: _TimerWatcher | None = None
        timeout_nano = 0
        if timeout is not None:
            if timeout <= 0:
                raise DeadlineExceeded("context deadline exceeded")
            self._deadline = monotonic() + timeout
        connection.wait_for_room(self._deadline)
        if connection.closed:
            raise ConnectionClosed
        if self._deadline is not None:
            timeout_nano = self._start_timer(self._deadline - monotonic())
        pairs = tuple(metadata if isinstance(metadata, Metadata) else Metadata(metadata))
        try:
            self.stream = connection.core.open(
                rpc, rpc.prefix, payload, timeout_nano=timeout_nano, metadata=pairs
            )
        except BaseException:
            self._stop_timer()
            raise
        self.stream.owner = self
        connection.ask_flush()

    def reply(self) -> Any:
        """Wait for the single reply."""
        stream = self.stream
        try:
            while stream.state is not ENDED:
                self.park()
        finally:
            self._stop_timer()
            if stream.state is not ENDED:
                self.abandon()
        if stream.error is not None:
            raise stream.error
        return self.rpc.parse_reply(stream.payload)

    def receive(self) -> bytes | None:
        """Wait for the next message; None at the end."""
        stream = self.stream
        while True:
            message = self._connection.core.take(stream)
            if message is not None:
                self._connection.resume_reading()
                return message
            if stream.state is ENDED:
                self._stop_timer()
                if stream.error is not None:
                    raise stream.error
                return None
            self.park()

    def send(self, payload: bytes) -> None:
        """Send one message, after waiting for room if necessary."""
        if self.stream.state is not OPEN and self.stream.error is None:
            raise StreamClosed
        self._connection.wait_for_room(self._deadline)
        if self.stream.error is not None:
            raise self.stream.error
        self._connection.core.send(self.stream, payload)
        self._connection.ask_flush()

    def close_send(self) -> None:
        """Tell the server that no more messages follow."""
        self._connection.core.close_send(self.stream)
        self._connection.ask_flush()

    def abandon(self) -> None:
        """End the call, for which no caller waits any more, and drop its messages."""
        self._stop_timer()
        self._connection.core.abandon(self.stream, Cancelled("context canceled"))
        self._connection.resume_reading()

    def _start_timer(self, seconds: float) -> int:
        if seconds < LONGEST_TIMER:
            self._timer = get_hub().loop.timer(max(0.0, seconds))
            self._timer.start(self._on_deadline)
        return min(max(1, int(seconds * 1e9)), LARGEST_TIMEOUT)

    def _on_deadline(self) -> None:
        error = DeadlineExceeded("context deadline exceeded")
        self._connection.core.abandon(self.stream, error)
        self._connection.resume_reading()
        self.wake()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None


class ClientStream(Generic[Sent, Received]):
    """The stream of a caller. Iterating over it receives up to the end of the messages.

    A call that has not ended is abandoned when the last reference is dropped or when its `with`
    block is left: nothing more is received, but the protocol has no frame to tell the server.
    """

    __slots__ = ("_call",)

    def __init__(self, call: ClientCall) -> None:
        self._call = call

    def send(self, message: Sent) -> None:
        """Send one message.

        Raises:
            StreamClosed: `close_send` was called, or the call has ended.
            StatusError: The call has failed with this status.
            ResourceExhausted: The message is larger than 4 MiB.
            TypeError: The method takes messages of another type.
        Blocks: the greenlet, while more than `Limits.outbox_wait` bytes are unsent.
        """
        rpc = self._call.rpc
        if not isinstance(message, rpc.request_type):
            raise TypeError(f"{rpc.full_name} takes {rpc.request_type.__name__}")
        self._call.send(message.SerializeToString())

    def close_send(self) -> None:
        """Tell the server that no more messages follow; do nothing if it knows."""
        self._call.close_send()

    def recv(self) -> Received | None:
        """Return the next message, or None at the end of the messages.

        Raises:
            StatusError: The status with which the call failed, after the messages before it.
        Blocks: the greenlet.
        """
        if not self._call.rpc.server_streaming:
            reply: Received = self._call.reply()
            return reply
        data = self._call.receive()
        return None if data is None else self._call.rpc.parse_reply(data)

    def close_and_recv(self) -> Received:
        """Call `close_send`, then return the single reply of a client-streaming call.

        Raises:
            StatusError: The status with which the call failed.
        Blocks: the greenlet.
        """
        self.close_send()
        reply: Received = self._call.reply()
        return reply

    def __iter__(self) -> Iterator[Received]:
        while (message := self.recv()) is not None:
            yield message

    def close(self) -> None:
        """Abandon the call unless it has ended, and drop the messages received."""
        self._call.abandon()

    def __enter__(self) -> ClientStream[Sent, Received]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
