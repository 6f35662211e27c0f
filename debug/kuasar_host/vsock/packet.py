"""The virtio-vsock packet header (virtio 1.2, section 5.10.6)."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

HOST_CID = 2
TYPE_STREAM = 1
SHUTDOWN_RECEIVE = 1
SHUTDOWN_SEND = 2
SHUTDOWN_BOTH = SHUTDOWN_RECEIVE | SHUTDOWN_SEND
# Linux never sends a larger payload (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
MAX_PAYLOAD = 64 * 1024


class Op(IntEnum):
    """Operation of a packet (virtio 1.2, section 5.10.6)."""

    REQUEST = 1
    RESPONSE = 2
    RST = 3
    SHUTDOWN = 4
    RW = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


class Header(NamedTuple):
    """struct virtio_vsock_hdr, little endian, 44 bytes."""

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    length: int
    type: int
    op: int
    flags: int
    buf_alloc: int
    fwd_cnt: int

    def pack(self) -> bytes:
        """Return the header as bytes."""
        return _LAYOUT.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> Header:
        """Return the header in `data`, which has HEADER_SIZE bytes."""
        return cls._make(_LAYOUT.unpack(data))


_LAYOUT = struct.Struct("<QQIIIHHIII")
HEADER_SIZE = _LAYOUT.size
