"""The frame: a 10-byte header and a payload.

    bytes 0-3  payload length, unsigned big-endian, header not included
    bytes 4-7  stream id, unsigned big-endian
    byte  8    message type
    byte  9    flags

https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER = struct.Struct(">IIBB")
MAX_PAYLOAD = 4 << 20
"""The largest legal payload, in bytes."""

REQUEST, RESPONSE, DATA = 1, 2, 3

REMOTE_CLOSED = 0x1
"""The sender sends nothing more on this stream."""
REMOTE_OPEN = 0x2
"""The sender will send Data on this stream."""
NO_DATA = 0x4
"""The frame carries no message, which is not the same as an empty one."""


class Frame(NamedTuple):
    """One frame; `length` exceeds `len(payload)` only when an oversize payload was skipped."""

    stream: int
    type: int
    flags: int
    payload: bytes
    length: int


def encode(stream: int, type: int, flags: int, payload: bytes) -> bytes:
    """The bytes of a frame; the caller has checked the payload against MAX_PAYLOAD."""
    return HEADER.pack(len(payload), stream, type, flags) + payload


class FrameReader:
    """Cuts a byte stream into frames; oversize payloads are consumed without being kept."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._buffer += data
        frames: list[Frame] = []
        offset = 0
        buffer = self._buffer
        while len(buffer) - offset >= HEADER.size:
            length, stream, kind, flags = HEADER.unpack_from(buffer, offset)
            start = offset + HEADER.size
            if length > MAX_PAYLOAD:
                frames.append(Frame(stream, kind, flags, b"", length))
                present = min(length, len(buffer) - start)
                self._skip = length - present
                offset = start + present
                continue
            if len(buffer) - start < length:
                break
            payload = bytes(buffer[start : start + length])
            frames.append(Frame(stream, kind, flags, payload, length))
            offset = start + length
        del buffer[:offset]
        return frames
