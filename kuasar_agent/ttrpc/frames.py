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
"""On a Request: Data of the sender's will follow."""
NO_DATA = 0x4
"""The frame carries no message, as against an empty one."""

Frame = tuple[int, int, int, bytes | int]
"""Stream id, type, flags, payload; for a payload beyond the limit its announced length instead."""

_pack = HEADER.pack
_unpack_from = HEADER.unpack_from


def oversize_text(length: int) -> str:
    """Go's words for a payload beyond the limit; clients compare them."""
    return f"message length {length} exceed maximum message size of {MAX_PAYLOAD}"


def encode(stream_id: int, kind: int, flags: int, payload: bytes) -> bytes:
    """One whole frame. Raises ResourceExhausted when the payload is over the limit."""
    length = len(payload)
    if length > MAX_PAYLOAD:
        raise ResourceExhausted(oversize_text(length))
    return _pack(length, stream_id, kind, flags) + payload


class FrameReader:
    """Cuts a byte stream into frames; a payload over the limit is skipped, never kept."""

    __slots__ = ("_partial", "_skip", "_skipped")

    def __init__(self) -> None:
        self._partial = bytearray()
        self._skip = 0
        self._skipped: Frame = (0, 0, 0, 0)

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """The frames that `data` completes; `data` may be reused by the caller afterwards."""
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
        """Add to the frame begun earlier what it lacks, and no more; how much of `view` that is.

        What follows is cut from `view` itself, without another copy.
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
        """Pass over a payload that is too long, from `start`; where it ends in `view`."""
        end = min(start + self._skip, len(view))
        self._skip -= end - start
        if not self._skip:
            frames.append(self._skipped)
        return end
