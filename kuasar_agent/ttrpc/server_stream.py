"""The messages of a streaming call, as its handler receives and sends them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, Protocol

from .stream import OPEN
from .transport import Parked
from .types import Received, Sent

if TYPE_CHECKING:
    from .server_core import ServerCore
    from .service import Method
    from .stream import Stream

__all__ = ["ServerStream"]


class StreamOwner(Protocol):
    """The connection of a stream, as far as the stream uses it; see `transport.Transport`."""

    core: ServerCore
    closed: bool

    def ask_flush(self) -> None: ...

    def wait_for_room(self, deadline: float | None) -> None: ...

    def drain_stream(self, stream_id: int) -> bool: ...

    def resume_reading(self) -> None: ...


class ServerStream(Parked, Generic[Received, Sent]):
    """The stream of a handler. Iterating over it receives up to the end of the messages."""

    __slots__ = ("_connection", "_deadline", "_method", "_stream")

    def __init__(self, stream: Stream, connection: StreamOwner, deadline: float | None) -> None:
        super().__init__()
        self._stream = stream
        self._method: Method = stream.method
        self._connection = connection
        self._deadline = deadline

    def recv(self) -> Received | None:
        """Return the next message, or None once the client has closed its side.

        Raises:
            ConnectionClosed: The connection is gone.
            DeadlineExceeded: The call's deadline has passed.
            StreamFull: The handler did not take messages for too long.
            Internal: The message does not parse.
        Blocks: the greenlet, until a message, the end or an error comes.
        """
        data = self._receive()
        return None if data is None else self._method.parse_request(data)

    def __iter__(self) -> Iterator[Received]:
        while (message := self.recv()) is not None:
            yield message

    def send(self, message: Sent) -> None:
        """Send one message.

        Raises:
            StreamClosed: The call has ended.
            DeadlineExceeded: The call's deadline passed while this waited.
            ResourceExhausted: The message is larger than 4 MiB.
            Internal: The message is not of the type that the method declares.
        Blocks: the greenlet, while more than `Limits.outbox_wait` bytes are unsent.
        """
        self.send_encoded(self._method.serialize_reply(message))

    def send_encoded(self, message: bytes) -> None:
        """Send one message that is serialized already; otherwise like `send`."""
        self._connection.wait_for_room(self._deadline)
        self._connection.core.send(self._stream, message)
        self._connection.ask_flush()

    def close_send(self) -> None:
        """Tell the client that no message follows; its messages can still be received."""
        self._connection.core.close_send(self._stream)
        self._connection.ask_flush()

    def flush(self) -> bool:
        """Wait until the kernel has every message sent; False if the connection ended before.

        Blocks: the greenlet.
        """
        return self._connection.drain_stream(self._stream.id)

    def withdraw(self, count: int) -> int:
        """Take back the newest messages, at most `count`, that the client will not receive.

        These are the messages of which the kernel has no part or, if the connection is closed,
        not all of it. Returns their number.
        """
        outbox = self._connection.core.outbox
        if self._connection.closed:
            # The rest of a message sent in part will not follow.
            return min(count, outbox.count(self._stream.id))
        return outbox.take_back(self._stream.id, count)

    def _receive(self) -> bytes | None:
        stream = self._stream
        while True:
            message = self._connection.core.take(stream)
            if message is not None:
                self._connection.resume_reading()
                return message
            if stream.error is not None:
                raise stream.error
            if stream.state is not OPEN:
                return None
            self.park()
