"""The other end of the vsock back end, for tests: a vhost-user front end with a guest's driver.

It speaks over a real unix socket and shares real memory (memfd), rings included.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import select
import socket
import struct
import time
from pathlib import Path

from kuasar_host.vsock.packet import HEADER_SIZE, HOST_CID, TYPE_STREAM, Header, Op
from kuasar_host.vsock.vhost_user import Request
from tests.support.timeouts import IN_PROCESS

GUEST_CID = 3
QUEUE_SIZE = 128
RX, TX = 0, 1

_GUEST_BASE = 0x4000_0000
_USER_BASE = 0x7F00_0000_0000
_MEMORY_SIZE = 4 * 1024 * 1024
_RING_SPACE = 16 * 1024
_BUFFERS = 64 * 1024
_RX_DATA = 4096
_RX_STRIDE = 8192
_TX_PAYLOAD = _BUFFERS + QUEUE_SIZE * _RX_STRIDE
_WRITE, _NEXT = 2, 1


class Gone(Exception):
    """The back end closed the vhost-user connection."""


class Ring:
    """The driver's side of one split ring."""

    def __init__(self, memory: memoryview, index: int) -> None:
        self.offset = index * _RING_SPACE
        self.kick = os.eventfd(0, os.EFD_NONBLOCK)
        self.call = os.eventfd(0, os.EFD_NONBLOCK)
        self.error = os.eventfd(0, os.EFD_NONBLOCK)
        area = memory[self.offset : self.offset + _RING_SPACE]
        area[:] = bytes(len(area))
        self._descriptors = area[: 16 * QUEUE_SIZE]
        self.available = area[4096 : 4096 + 4 + 2 * QUEUE_SIZE].cast("H")
        self._used_header = area[8192:8196].cast("H")
        self._used = area[8196 : 8196 + 8 * QUEUE_SIZE]
        self._seen = 0
        self.polled = False
        self.quiet = False

    def set_descriptor(self, index: int, address: int, size: int, flags: int, link: int) -> None:
        struct.pack_into("<QIHH", self._descriptors, 16 * index, address, size, flags, link)

    def offer(self, head: int) -> None:
        self.available[2 + self.available[1] % QUEUE_SIZE] = head
        self.available[1] = (self.available[1] + 1) & 0xFFFF
        if not self.quiet:
            os.eventfd_write(self.kick, 1)

    def take_used(self, deadline: float = IN_PROCESS) -> tuple[int, int] | None:
        """(head, bytes written) of the next returned buffer; None after the deadline."""
        end = time.monotonic() + deadline
        while self._used_header[1] == self._seen:
            left = end - time.monotonic()
            if left <= 0:
                return None
            if self.polled:
                time.sleep(0.001)
                continue
            select.select([self.call], [], [], left)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.call)
        head, size = struct.unpack_from("<II", self._used, 8 * (self._seen % QUEUE_SIZE))
        self._seen = (self._seen + 1) & 0xFFFF
        return head, size

    def close(self) -> None:
        for fd in (self.kick, self.call, self.error):
            os.close(fd)


class Driver:
    """A guest with both rings set up; `receive_buffers` of them are offered at once."""

    def __init__(self, vhost: Path, receive_buffers: int = QUEUE_SIZE // 2) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(IN_PROCESS)
        self.socket.connect(os.fspath(vhost))
        self._memfd = os.memfd_create("guest")
        os.ftruncate(self._memfd, _MEMORY_SIZE)
        self._map = mmap.mmap(self._memfd, _MEMORY_SIZE)
        self.memory = memoryview(self._map)
        self.rings: list[Ring] = []
        self.negotiate()
        self.start(receive_buffers)

    def negotiate(self) -> None:
        self.ask(Request.GET_FEATURES)
        self.ask(Request.GET_PROTOCOL_FEATURES)
        self.tell(Request.SET_PROTOCOL_FEATURES, struct.pack("<Q", 1 << 3 | 1 << 9))
        self.tell(Request.SET_OWNER)
        self.tell(Request.SET_FEATURES, struct.pack("<Q", 1 << 32 | 1 << 30))

    def start(self, receive_buffers: int = QUEUE_SIZE // 2) -> None:
        """Set both rings up from scratch, as a booting guest does."""
        self.set_memory()
        for index in (RX, TX):
            ring = Ring(self.memory, index)
            self.rings.append(ring)
            user = _USER_BASE + ring.offset
            self.tell(Request.SET_VRING_NUM, struct.pack("<II", index, QUEUE_SIZE))
            self.tell(Request.SET_VRING_BASE, struct.pack("<II", index, 0))
            addresses = struct.pack("<IIQQQQ", index, 0, user, user + 8192, user + 4096, 0)
            self.tell(Request.SET_VRING_ADDR, addresses)
            word = struct.pack("<Q", index)
            self.tell(Request.SET_VRING_ERR, word, [ring.error])
            self.tell(Request.SET_VRING_KICK, word, [ring.kick])
            self.tell(Request.SET_VRING_CALL, word, [ring.call])
        self.sync()
        for buffer in range(receive_buffers):
            self.offer_receive_buffer(2 * buffer)

    def stop(self) -> None:
        """What QEMU does when the guest resets the device."""
        for index in (RX, TX):
            self.ask(Request.GET_VRING_BASE, struct.pack("<II", index, 0))
        self._drop_rings()

    def set_memory(self) -> None:
        region = struct.pack("<QQQQ", _GUEST_BASE, _MEMORY_SIZE, _USER_BASE, 0)
        self.tell(Request.SET_MEM_TABLE, struct.pack("<II", 1, 0) + region, [self._memfd])

    def close(self) -> None:
        self.socket.close()
        self._drop_rings()
        os.close(self._memfd)

    def _drop_rings(self) -> None:
        for ring in self.rings:
            ring.close()
        self.rings.clear()

    def tell(self, request: int, body: bytes = b"", fds: list[int] | None = None) -> None:
        message = struct.pack("<III", request, 1, len(body)) + body
        socket.send_fds(self.socket, [message], fds or [])

    def ask(self, request: int, body: bytes = b"", flags: int = 1) -> bytes:
        """Raises Gone."""
        try:
            self.socket.sendall(struct.pack("<III", request, flags, len(body)) + body)
            _request, _flags, size = struct.unpack("<III", self._receive_exactly(12))
            return self._receive_exactly(size)
        except ConnectionError as error:
            raise Gone from error

    def sync(self) -> None:
        """Return once everything told has been handled. Raises Gone."""
        self.ask(Request.GET_FEATURES)

    def wait_gone(self) -> None:
        with contextlib.suppress(ConnectionError):
            assert self.socket.recv(1) == b""

    def _receive_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise Gone
            data += piece
        return data

    def offer_receive_buffer(self, head: int) -> None:
        """A header and a page behind it, in two descriptors as Linux 6.1 does it."""
        ring = self.rings[RX]
        address = _GUEST_BASE + _BUFFERS + head * _RX_STRIDE
        ring.set_descriptor(head, address, HEADER_SIZE, _WRITE | _NEXT, head + 1)
        ring.set_descriptor(head + 1, address + 64, _RX_DATA, _WRITE, 0)
        ring.offer(head)

    def receive(self, deadline: float = IN_PROCESS, *, offer_again: bool = True) -> Packet:
        """The next packet for the guest. Raises TimeoutError."""
        used = self.rings[RX].take_used(deadline)
        if used is None:
            raise TimeoutError
        head, written = used
        start = _BUFFERS + head * _RX_STRIDE
        header = Header.unpack(self.memory[start : start + HEADER_SIZE])
        assert written == HEADER_SIZE + header.length
        data = bytes(self.memory[start + 64 : start + 64 + header.length])
        if offer_again:
            self.offer_receive_buffer(head)
        return Packet(header, data)

    def send(self, header: Header, payload: bytes = b"", pieces: int = 1) -> None:
        """One packet to the host; returns when the buffer came back."""
        self.post(header, payload, pieces)
        assert self.rings[TX].take_used() is not None

    def post(self, header: Header, payload: bytes = b"", pieces: int = 1) -> None:
        """One packet to the host, made available only."""
        data = header.pack() + payload
        self.memory[_TX_PAYLOAD : _TX_PAYLOAD + len(data)] = data
        cuts = [HEADER_SIZE] if pieces == 1 else []
        cuts += [len(data) * i // pieces for i in range(1, pieces)]
        self._post_raw(_spans(len(data), sorted(set(cuts))))

    def send_raw(self, spans: list[tuple[int, int]]) -> None:
        """One chain of these (start, size) pieces of the send area; returns when it came back."""
        self._post_raw(spans)
        assert self.rings[TX].take_used() is not None

    def _post_raw(self, spans: list[tuple[int, int]]) -> None:
        ring = self.rings[TX]
        for index, (start, size) in enumerate(spans):
            last = index == len(spans) - 1
            address = _GUEST_BASE + _TX_PAYLOAD + start
            ring.set_descriptor(index, address, size, 0 if last else _NEXT, index + 1)
        ring.offer(0)


class Packet:
    def __init__(self, header: Header, payload: bytes) -> None:
        self.header = header
        self.payload = payload
        self.op = header.op


class Stream:
    """One connection as the guest sees it."""

    def __init__(self, driver: Driver, host_port: int, guest_port: int, space: int) -> None:
        self.driver = driver
        self.host_port = host_port
        self.guest_port = guest_port
        self.space = space
        self.taken = 0
        self.sent = 0
        self.peer_space = 0
        self.peer_taken = 0

    def send(self, op: Op, payload: bytes = b"", flags: int = 0, pieces: int = 1) -> None:
        self.driver.send(self._header(op, len(payload), flags), payload, pieces)
        self.sent += len(payload)

    def post(self, op: Op, payload: bytes = b"") -> None:
        """As `send`, without waiting for the packet to be taken."""
        self.driver.post(self._header(op, len(payload), 0), payload)
        self.sent += len(payload)

    def _header(self, op: Op, length: int, flags: int) -> Header:
        return Header(
            GUEST_CID,
            HOST_CID,
            self.guest_port,
            self.host_port,
            length,
            TYPE_STREAM,
            op,
            flags,
            self.space,
            self.taken,
        )

    def note(self, packet: Packet) -> Packet:
        self.peer_space = packet.header.buf_alloc
        self.peer_taken = packet.header.fwd_cnt
        return packet

    def receive(self, deadline: float = IN_PROCESS) -> Packet:
        return self.note(self.driver.receive(deadline))

    @property
    def credit(self) -> int:
        return self.peer_space - (self.sent - self.peer_taken)


def _spans(size: int, cuts: list[int]) -> list[tuple[int, int]]:
    edges = [0, *[cut for cut in cuts if 0 < cut < size], size]
    return [(start, end - start) for start, end in itertools.pairwise(edges)]
