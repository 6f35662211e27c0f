"""The virtio-vsock device (virtio 1.2, section 5.10): connections over two virtqueues."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections import deque
from pathlib import Path
from typing import NamedTuple

from kuasar_host.sockets import short_path
from kuasar_host.vsock.connection import Connection
from kuasar_host.vsock.loop import Loop
from kuasar_host.vsock.packet import (
    HEADER_SIZE,
    HOST_CID,
    MAX_PAYLOAD,
    TYPE_STREAM,
    Header,
    Op,
)
from kuasar_host.vsock.virtqueue import Chain, RingError, Virtqueue

RX = 0
TX = 1
# The third queue of the device, for events, is served by QEMU itself.
_QUEUE_COUNT = 2
# Packets that may wait for receive buffers of the guest; with more, none is taken from it.
_MAX_WAITING = 1024
_FIRST_PORT = 1 << 30
_PORTS = 1 << 30


class _Packet(NamedTuple):
    """A packet without payload that waits for a receive buffer."""

    host_port: int
    guest_port: int
    op: Op
    flags: int
    connection: Connection | None


class VsockDevice:
    """Implements vhost_user.VirtioDevice and connection.Sender."""

    def __init__(self, loop: Loop, guest_cid: int, socket_path: Path) -> None:
        """Connect the guest's connections to port P with the unix socket `<socket_path>_<P>`."""
        self._loop = loop
        self._cid = guest_cid
        self._path = socket_path
        self._queues: list[Virtqueue | None] = [None] * _QUEUE_COUNT
        self._connections: dict[tuple[int, int], Connection] = {}
        self._waiting: deque[_Packet] = deque()
        self._readers: deque[Connection] = deque()
        self._port = 0

    @property
    def features(self) -> int:
        return 0

    @property
    def config(self) -> bytes:
        return struct.pack("<Q", self._cid)

    @property
    def queue_count(self) -> int:
        return _QUEUE_COUNT

    def set_queue(self, index: int, queue: Virtqueue | None) -> None:
        """End every connection when a queue stops: the driver starts without any."""
        if queue is None:
            self._take_last_packets()
            self._drop_connections()
        self._queues[index] = queue

    def connect(self, sock: socket.socket, guest_port: int) -> None:
        """Open a connection to the guest for a client; takes over the non-blocking `sock`."""
        if None in self._queues:
            sock.close()
            return
        key = (self._free_port(guest_port), guest_port)
        connection = Connection(self._loop, self, sock, *key)
        self._connections[key] = connection
        self.send(connection, Op.REQUEST)

    def send(self, connection: Connection, op: Op, flags: int = 0) -> None:
        self._waiting.append(
            _Packet(connection.host_port, connection.guest_port, op, flags, connection)
        )

    def want_read(self, connection: Connection) -> None:
        self._readers.append(connection)

    def forget(self, connection: Connection) -> None:
        self._connections.pop((connection.host_port, connection.guest_port), None)

    def step(self) -> bool:
        """Move packets, a ring's length at most; return whether more can be moved now."""
        more = False
        for index, move in ((TX, self._take_from_guest), (RX, self._give_to_guest)):
            queue = self._queues[index]
            if queue is not None:
                try:
                    more |= move(queue)
                except RingError as error:
                    self._break_queues(error)
        return more

    def _take_last_packets(self) -> None:
        """Deliver the packets that the guest wrote before its queues stopped."""
        queue = self._queues[TX]
        if queue is not None:
            with contextlib.suppress(RingError):
                self._take_from_guest(queue)

    def _break_queues(self, error: RingError) -> None:
        print(f"vsock: stopped until the guest resets the device: {error}", file=sys.stderr)
        for queue in self._queues:
            if queue is not None:
                queue.signals.error()
        self._queues = [None] * _QUEUE_COUNT
        self._drop_connections()

    def _drop_connections(self) -> None:
        for connection in list(self._connections.values()):
            connection.guest_reset()
        self._waiting.clear()
        self._readers.clear()

    def _free_port(self, guest_port: int) -> int:
        while True:
            self._port = (self._port + 1) % _PORTS
            if (_FIRST_PORT + self._port, guest_port) not in self._connections:
                return _FIRST_PORT + self._port

    def _take_from_guest(self, queue: Virtqueue) -> bool:
        taken = 0
        while taken < queue.size and len(self._waiting) < _MAX_WAITING:
            chain = queue.pop()
            if chain is None:
                break
            self._on_packet(chain.readable)
            queue.push(chain.head, 0)
            taken += 1
        if taken:
            queue.interrupt()
        return len(self._waiting) < _MAX_WAITING and queue.pending()

    def _give_to_guest(self, queue: Virtqueue) -> bool:
        given = 0
        for _ in range(queue.size):
            if not self._waiting and not self._readers:
                break
            chain = queue.pop()
            if chain is None:
                break
            written = self._fill(chain)
            if written:
                queue.push(chain.head, written)
                given += 1
            else:
                queue.unpop()
        if given:
            queue.interrupt()
        return bool(self._waiting or self._readers) and queue.pending()

    def _fill(self, chain: Chain) -> int:
        """Fill a buffer of the guest and return the size; 0 if no packet needs it."""
        views = _skip(chain.writable, HEADER_SIZE)
        if views is None:
            raise RingError("receive buffer is shorter than a header")
        if self._waiting:
            packet = self._waiting.popleft()
            size = 0
        else:
            connection = self._readers.popleft()
            size = connection.fill(views)
            if size == 0:
                return 0
            packet = _Packet(connection.host_port, connection.guest_port, Op.RW, 0, connection)
        _write(chain.writable, self._header(packet, size).pack())
        return HEADER_SIZE + size

    def _header(self, packet: _Packet, size: int) -> Header:
        space = packet.connection.buffer_space() if packet.connection else (0, 0)
        return Header(
            HOST_CID,
            self._cid,
            packet.host_port,
            packet.guest_port,
            size,
            TYPE_STREAM,
            packet.op,
            packet.flags,
            *space,
        )

    def _on_packet(self, views: list[memoryview]) -> None:
        payload = _skip(views, HEADER_SIZE)
        if payload is None:
            return
        header = Header.unpack(_read(views, HEADER_SIZE))
        key = (header.dst_port, header.src_port)
        connection = self._connections.get(key)
        if (
            header.src_cid != self._cid
            or header.dst_cid != HOST_CID
            or header.type != TYPE_STREAM
            or (connection is None and header.op != Op.REQUEST)
        ):
            self._refuse(header)
        elif connection is None:
            self._accept(header)
        else:
            connection.take_credit(header)
            self._on_connection_packet(connection, header, payload)

    def _on_connection_packet(
        self, connection: Connection, header: Header, payload: list[memoryview]
    ) -> None:
        match header.op:
            case Op.RESPONSE if not connection.established:
                connection.open(b"OK %d\n" % connection.host_port)
            case Op.RST:
                connection.guest_reset()
            case Op.RW if connection.established and header.length <= MAX_PAYLOAD:
                data = _take(payload, header.length)
                if data is None:
                    connection.reset()
                else:
                    connection.receive(data)
            case Op.SHUTDOWN if connection.established:
                connection.guest_shutdown(header.flags)
            case Op.CREDIT_UPDATE:
                pass
            case Op.CREDIT_REQUEST:
                connection.credit_request()
            case _:
                connection.reset()

    def _refuse(self, header: Header) -> None:
        if header.op != Op.RST:
            packet = _Packet(header.dst_port, header.src_port, Op.RST, 0, None)
            self._waiting.append(packet)

    def _accept(self, header: Header) -> None:
        sock = self._dial(header.dst_port)
        if sock is None:
            self._refuse(header)
            return
        key = (header.dst_port, header.src_port)
        connection = Connection(self._loop, self, sock, *key)
        self._connections[key] = connection
        connection.take_credit(header)
        self.send(connection, Op.RESPONSE)
        connection.open()

    def _dial(self, port: int) -> socket.socket | None:
        path = self._path.with_name(f"{self._path.name}_{port}")
        try:
            with short_path(path) as name, contextlib.ExitStack() as undo:
                sock = undo.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                sock.connect(name)
                undo.pop_all()
                return sock
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                print(f"vsock: {os.strerror(error.errno)}", file=sys.stderr, flush=True)
            return None


def _skip(views: list[memoryview], size: int) -> list[memoryview] | None:
    """Return the bytes after the first `size`, or None if there are fewer."""
    rest = []
    for view in views:
        rest.append(view[size:])
        size = max(0, size - len(view))
    return None if size else [view for view in rest if len(view)]


def _take(views: list[memoryview], size: int) -> list[memoryview] | None:
    """Return the first `size` bytes, or None if there are fewer."""
    first = []
    for view in views:
        if size == 0:
            break
        piece = view[:size]
        size -= len(piece)
        first.append(piece)
    return None if size else first


def _read(views: list[memoryview], size: int) -> bytes:
    return b"".join(_take(views, size) or ())


def _write(views: list[memoryview], data: bytes) -> None:
    """Write to the start of the views, which have at least that size."""
    for view in views:
        piece = data[: len(view)]
        view[: len(piece)] = piece
        data = data[len(piece) :]
        if not data:
            break
