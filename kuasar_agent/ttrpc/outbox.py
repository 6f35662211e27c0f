"""Frames that wait for the socket."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice


class Outbox:
    """A queue of whole frames; the kernel may already have a part of the first one."""

    __slots__ = ("_frames", "_offset", "size")

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._offset = 0
        self.size = 0

    def append(self, frame: bytes) -> None:
        """Queue a frame."""
        self._frames.append(frame)
        self.size += len(frame)

    def peek(self, count: int) -> list[bytes | memoryview]:
        """Return the next frames, at most `count`, as buffers for sendmsg(2)."""
        buffers: list[bytes | memoryview] = list(islice(self._frames, count))
        if self._offset:
            buffers[0] = memoryview(buffers[0])[self._offset :]
        return buffers

    def consume(self, sent: int) -> None:
        """Remove the first `sent` bytes, which the kernel has accepted."""
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
        """Remove and return everything."""
        data = b"".join(self.peek(len(self._frames)))
        self.consume(len(data))
        return data

    def drop(self, stream_id: int) -> None:
        """Remove the frames of a stream, except one of which the kernel has a part."""
        key = stream_id.to_bytes(4, "big")
        kept: deque[bytes] = deque()
        for index, frame in enumerate(self._frames):
            if frame[4:8] != key or (index == 0 and self._offset):
                kept.append(frame)
            else:
                self.size -= len(frame)
        self._frames = kept

    def take_back(self, stream_id: int, count: int) -> int:
        """Remove the last frames of a stream, at most `count`; return the number removed.

        A frame of which the kernel has a part stays.
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
        """Return the number of frames of a stream that the kernel does not have completely."""
        if not self._frames:
            return 0
        key = stream_id.to_bytes(4, "big")
        return sum(frame[4:8] == key for frame in self._frames)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._frames)
