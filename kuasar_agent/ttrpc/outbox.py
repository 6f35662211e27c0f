"""One call as a connection's core sees it, and the queues around it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from .status import StatusError

MESSAGE_OVERHEAD = 64
"""Charged for each queued message, so that empty ones are bounded too."""


class MethodKind(Protocol):
    """What the core needs to know of a method; the four kinds are the four combinations."""

    @property
    def client_streaming(self) -> bool: ...

    @property
    def server_streaming(self) -> bool: ...


class Stream:
    """The state of one call; the connection changes it, its user reads it.

    `remote_closed`: the peer sends no more messages. `local_closed`: we send none. `ended`: the
    call is over on the wire and its id is out of the connection's table. Messages received
    before any of these stay in the inbox.
    """

    __slots__ = (
        "ended",
        "error",
        "id",
        "inbox",
        "inbox_size",
        "local_closed",
        "metadata",
        "method",
        "owner",
        "payload",
        "remote_closed",
        "stall_mark",
        "taken",
        "timeout_nano",
    )

    def __init__(self, stream_id: int, method: Any, payload: bytes) -> None:
        self.id = stream_id
        self.method = method
        self.payload = payload
        """The single request message on a server, the single reply on a client."""
        self.timeout_nano = 0
        self.metadata: tuple[tuple[str, str], ...] = ()
        self.inbox: deque[bytes] | None = None
        self.inbox_size = 0
        self.remote_closed = False
        self.local_closed = False
        self.ended = False
        self.error: StatusError | None = None
        self.taken = 0
        self.stall_mark = -1
        self.owner: Any = None
        """A place for the adapter around the core."""


class Outbox:
    """Whole frames in the order in which they go out; the first may be partly gone."""

    __slots__ = ("_frames", "_offset", "size")

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._offset = 0
        self.size = 0

    def append(self, frame: bytes) -> None:
        self._frames.append(frame)
        self.size += len(frame)

    def peek(self, count: int) -> list[bytes | memoryview]:
        """The next frames, at most `count`, to hand to sendmsg(2)."""
        buffers: list[bytes | memoryview] = list(islice(self._frames, count))
        if self._offset:
            buffers[0] = memoryview(buffers[0])[self._offset :]
        return buffers

    def consume(self, sent: int) -> None:
        """Forget what the kernel took."""
        if sent == self.size:
            self._frames.clear()
            self._offset = self.size = 0
            return
        self.size -= sent
        sent += self._offset
        frames = self._frames
        while frames and sent >= len(frames[0]):
            sent -= len(frames.popleft())
        self._offset = sent

    def take(self) -> bytes:
        """All that waits, as bytes."""
        data = b"".join(self.peek(len(self._frames)))
        self.consume(len(data))
        return data

    def drop(self, stream_id: int) -> None:
        """Forget a stream's frames, except one that is partly gone."""
        key = stream_id.to_bytes(4, "big")
        kept: deque[bytes] = deque()
        for index, frame in enumerate(self._frames):
            if frame[4:8] != key or (index == 0 and self._offset):
                kept.append(frame)
            else:
                self.size -= len(frame)
        self._frames = kept

    def take_back(self, stream_id: int, count: int) -> int:
        """Remove a stream's last frames, at most `count`, and return how many it were.

        One that the kernel has in part stays.
        """
        key = stream_id.to_bytes(4, "big")
        taken = 0
        for index in range(len(self._frames) - 1, -1, -1):
            frame = self._frames[index]
            if taken == count or (index == 0 and self._offset):
                break
            if frame[4:8] == key:
                del self._frames[index]
                self.size -= len(frame)
                taken += 1
        return taken

    def count(self, stream_id: int) -> int:
        """How many of a stream's frames wait for the kernel, at least in part."""
        if not self._frames:
            return 0
        key = stream_id.to_bytes(4, "big")
        return sum(frame[4:8] == key for frame in self._frames)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._frames)
