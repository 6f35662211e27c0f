"""A call on the client: waiting for its reply or its messages."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from gevent.hub import get_hub

from .metadata import Metadata, MetadataLike
from .status import (
    Cancelled,
    ConnectionClosed,
    DeadlineExceeded,
    StreamClosed,
)
from .transport import LONGEST_TIMER, Parked, Transport

if TYPE_CHECKING:
    from gevent._types import _TimerWatcher
    from google.protobuf.message import Message

    from .client_core import ClientCore
    from .service import Method

LARGEST_TIMEOUT = (1 << 63) - 1


class ClientTransport(Transport):
    """A transport whose core is a client's."""

    core: ClientCore


class ClientCall(Parked):
    """One call in progress; its greenlet parks here."""

    __slots__ = ("_connection", "_deadline", "_timer", "rpc", "state")

    def __init__(
        self,
        connection: ClientTransport,
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
            self.state = connection.core.open(
                rpc, rpc.prefix, payload, timeout_nano=timeout_nano, metadata=pairs
            )
        except BaseException:
            self._stop_timer()
            raise
        self.state.owner = self
        connection.ask_flush()

    def reply(self) -> Any:
        """Wait for the single reply."""
        state = self.state
        try:
            while not state.ended:
                self.park()
        finally:
            self._stop_timer()
            if not state.ended:
                self.abandon()
        if state.error is not None:
            raise state.error
        return self.rpc.parse_reply(state.payload)

    def receive(self) -> bytes | None:
        """Wait for the next message; None at the end."""
        state = self.state
        while True:
            message = self._connection.core.take(state)
            if message is not None:
                self._connection.resume_reading()
                return message
            if state.ended:
                self._stop_timer()
                if state.error is not None:
                    raise state.error
                return None
            self.park()

    def send(self, payload: bytes) -> None:
        """Send one message, after waiting for room if need be."""
        self._connection.wait_for_room(self._deadline)
        if self.state.error is not None:
            raise self.state.error
        self._connection.core.send(self.state, payload)
        self._connection.ask_flush()

    def close_send(self) -> None:
        """Say that no more messages follow."""
        self._connection.core.close_send(self.state)
        self._connection.ask_flush()

    def abandon(self) -> None:
        """Nobody waits any more."""
        self._stop_timer()
        self._connection.core.abandon(self.state, Cancelled("context canceled"))
        self._connection.resume_reading()

    def _start_timer(self, seconds: float) -> int:
        if seconds < LONGEST_TIMER:
            self._timer = get_hub().loop.timer(max(0.0, seconds))
            self._timer.start(self._on_deadline)
        return min(max(1, int(seconds * 1e9)), LARGEST_TIMEOUT)

    def _on_deadline(self) -> None:
        error = DeadlineExceeded("context deadline exceeded")
        self._connection.core.abandon(self.state, error)
        self._connection.resume_reading()
        self.wake()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None


class ClientStream:
    """The streaming side of a call. Iterating receives to the end.

    Dropping the last reference, or leaving it as a context manager, abandons a call that has not
    ended: nothing more is received, but the protocol cannot tell the server.
    """

    __slots__ = ("_call",)

    def __init__(self, call: ClientCall) -> None:
        self._call = call

    def send(self, message: Message) -> None:
        """Send one message; waits while too much is unsent.

        Raises StreamClosed after `close_send` or the end of the call, the call's error if it
        failed, ResourceExhausted for more than 4 MiB.
        """
        if not isinstance(message, self._call.rpc.request_type):
            raise TypeError(f"{self._call.rpc.full_name} takes another message")
        if self._call.state.local_closed and self._call.state.error is None:
            raise StreamClosed
        self._call.send(message.SerializeToString())

    def close_send(self) -> None:
        """Say that no more messages follow; once is enough."""
        self._call.close_send()

    def recv(self) -> Any:
        """The next message, or None when the server has sent all.

        Raises the status that the call ended with once the messages before it were taken.
        """
        if not self._call.rpc.server_streaming:
            return self._call.reply()
        data = self._call.receive()
        return None if data is None else self._call.rpc.parse_reply(data)

    def close_and_recv(self) -> Any:
        """`close_send`, then the single reply of a client-streaming call."""
        self.close_send()
        return self.recv()

    def __iter__(self) -> Iterator[Any]:
        while (message := self.recv()) is not None:
            yield message

    def close(self) -> None:
        """Abandon the call unless it has ended, and what it received."""
        self._call.abandon()

    def __enter__(self) -> ClientStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
