"""Frames: a ten-byte header and a payload.

    0              4              8      9      10
    +--------------+--------------+------+------+----------- - -
    | length (BE)  | stream id    | type | flags| payload
    +--------------+--------------+------+------+----------- - -

The length is the payload's alone and at most 4 MiB. The layout and the limit are those of
containerd/ttrpc (channel.go, PROTOCOL.md).
"""

from __future__ import annotations

from struct import Struct

from .status import ResourceExhausted

HEADER = Struct(">IIBB")
HEADER_SIZE = 10
MAX_PAYLOAD = 4 << 20

REQUEST = 1
RESPONSE = 2
DATA = 3

REMOTE_CLOSED = 0x1
"""The sender of this frame sends nothing more on the stream."""
REMOTE_OPEN = 0x2
"""On a Request: Data frames of the client will follow."""
NO_DATA = 0x4
"""The frame carries no message, as distinct from an empty message."""

Frame = tuple[int, int, int, bytes | int]
"""Stream id, type, flags and payload; an oversize payload is given as its announced length."""

_pack = HEADER.pack
_unpack_from = HEADER.unpack_from


def oversize_text(length: int) -> str:
    """Return Go's text for a payload over the limit; clients compare it."""
    return f"message length {length} exceed maximum message size of {MAX_PAYLOAD}"


def encode(stream_id: int, kind: int, flags: int, payload: bytes) -> bytes:
    """Return a whole frame.

    Raises:
        ResourceExhausted: The payload is over the limit.
    """
    length = len(payload)
    if length > MAX_PAYLOAD:
        raise ResourceExhausted(oversize_text(length))
    return _pack(length, stream_id, kind, flags) + payload


class FrameReader:
    """A parser that cuts a byte stream into frames; it skips oversize payloads unread."""

    __slots__ = ("_partial", "_skip", "_skipped")

    def __init__(self) -> None:
        self._partial = bytearray()
        self._skip = 0
        self._skipped: Frame = (0, 0, 0, 0)

    @property
    def partial_size(self) -> int:
        """Bytes kept of a frame that has not arrived completely."""
        return len(self._partial)

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """Return the frames that `data` completes; the caller may reuse `data` afterwards."""
        frames: list[Frame] = []
        view = memoryview(data)
        size = len(view)
        position = 0
        if self._skip:
            position = self._discard(view, 0, frames)
        elif self._partial:
            position = self._complete(view, frames)
        while size - position >= HEADER_SIZE:
            length, stream_id, kind, flags = _unpack_from(view, position)
            start = position + HEADER_SIZE
            if length > MAX_PAYLOAD:
                self._skip = length
                self._skipped = (stream_id, kind, flags, length)
                position = self._discard(view, start, frames)
                continue
            end = start + length
            if end > size:
                break
            frames.append((stream_id, kind, flags, bytes(view[start:end])))
            position = end
        if position < size:
            self._partial = bytearray(view[position:])
        return frames

    def _complete(self, view: memoryview, frames: list[Frame]) -> int:
        """Complete the partial frame with the start of `view`; return the position behind it.

        Only the missing bytes are copied; later frames are cut from `view` itself.
        """
        partial = self._partial
        taken = max(0, HEADER_SIZE - len(partial))
        partial += view[:taken]
        if len(partial) < HEADER_SIZE:
            return len(view)
        length, stream_id, kind, flags = _unpack_from(partial)
        if length > MAX_PAYLOAD:
            self._partial = bytearray()
            self._skip = length
            self._skipped = (stream_id, kind, flags, length)
            return self._discard(view, taken, frames)
        end: int = taken + HEADER_SIZE + length - len(partial)
        partial += view[taken:end]
        if end > len(view):
            return len(view)
        frames.append((stream_id, kind, flags, bytes(memoryview(partial)[HEADER_SIZE:])))
        self._partial = bytearray()
        return end

    def _discard(self, view: memoryview, start: int, frames: list[Frame]) -> int:
        """Skip an oversize payload from `start`; return the position behind it in `view`."""
        end = min(start + self._skip, len(view))
        self._skip -= end - start
        if not self._skip:
            frames.append(self._skipped)
        return end
