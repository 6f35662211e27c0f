"""One vsock stream: a unix socket on the host's side, packets on the guest's.

Credit limits both directions. The guest may have sent at most BUFFER_SIZE bytes that the unix
socket has not taken; no more is read from the unix socket than the guest has room for. The socket
is watched edge-triggered until it is closed: `_readable` and `_writable` keep the last event.
"""

from __future__ import annotations

import contextlib
import select
import socket
from typing import Protocol

from kuasar_host.vsock.loop import Loop
from kuasar_host.vsock.packet import (
    MAX_PAYLOAD,
    SHUTDOWN_BOTH,
    SHUTDOWN_RECEIVE,
    SHUTDOWN_SEND,
    Header,
    Op,
)

# Bytes from the guest that one connection keeps at most.
BUFFER_SIZE = 256 * 1024

_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_READ_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITE_EVENTS = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_MASK = 0xFFFFFFFF
# sendmsg takes at most 1024 pieces (IOV_MAX).
_MAX_VIEWS = 256


class Sender(Protocol):
    """The part of the device that a connection uses."""

    def send(self, connection: Connection, op: Op, flags: int = 0) -> None:
        """Queue a packet without payload."""

    def want_read(self, connection: Connection) -> None:
        """Call `fill` when a receive buffer of the guest is free."""

    def forget(self, connection: Connection) -> None:
        """Free the ports: the guest has closed the connection."""


class Connection:
    """One stream, from the guest's or the client's request until both sides have closed it."""

    def __init__(
        self, loop: Loop, device: Sender, sock: socket.socket, host_port: int, guest_port: int
    ) -> None:
        """Take ownership of `sock`, which must be non-blocking; `open` starts the traffic."""
        self.host_port = host_port
        self.guest_port = guest_port
        self.established = False
        self._loop = loop
        self._device = device
        self._socket = sock
        self._closed = False
        self._known_to_guest = True

        self._readable = False
        self._read_done = False
        self._hung_up = False
        self._scheduled = False
        self._sent = 0
        self._guest_space = 0
        self._guest_taken = 0
        self._credit_requested = False

        self._writable = True
        self._write_broken = False
        self._guest_shutdown = 0
        self._backlog = bytearray()
        self._received = 0
        self._forwarded = 0
        self._announced = 0

        loop.watch(sock.fileno(), _EVENTS, self._on_event)

    def open(self, greeting: bytes = b"") -> None:
        """Start the traffic; the host's side gets `greeting` before the guest's bytes."""
        self.established = True
        # Nothing was written to the socket before, so this is never short.
        if greeting:
            self._write([memoryview(greeting)])
        self._schedule_read()

    def buffer_space(self) -> tuple[int, int]:
        """Return buf_alloc and fwd_cnt for the header of the packet that is sent next."""
        self._announced = self._forwarded
        return BUFFER_SIZE, self._forwarded

    def take_credit(self, header: Header) -> None:
        """Take the guest's room for data from the header of any of its packets."""
        self._guest_space = header.buf_alloc
        self._guest_taken = header.fwd_cnt
        self._schedule_read()

    def receive(self, payload: list[memoryview]) -> None:
        """Take bytes from the guest; the views are invalid after the return."""
        size = sum(map(len, payload))
        if self._guest_shutdown & SHUTDOWN_SEND:
            self.reset()
            return
        if ((self._received - self._forwarded) & _MASK) + size > BUFFER_SIZE:
            # The guest sent more than its credit: there is no room for it.
            self.reset()
            return
        self._received = (self._received + size) & _MASK
        written = 0 if self._backlog else self._write(payload)
        self._count_forwarded(written)
        for view in payload:
            self._backlog += view[written:]
            written = max(0, written - len(view))
        if self._write_broken or self._closed:
            self._drop_backlog()

    def guest_shutdown(self, flags: int) -> None:
        """Note that the guest stops to send (SHUTDOWN_SEND) or to receive (SHUTDOWN_RECEIVE)."""
        self._guest_shutdown |= flags & SHUTDOWN_BOTH
        if self._guest_shutdown == SHUTDOWN_BOTH:
            # The guest waits for the RST; its bytes in the backlog are still written.
            self.reset()
            return
        if flags & SHUTDOWN_RECEIVE:
            self._stop_reading()
        if not self._backlog:
            self._finish_writing()

    def guest_reset(self) -> None:
        """Note that the guest ended the connection; the backlog is still delivered."""
        self._forget()
        self._guest_shutdown = SHUTDOWN_BOTH
        self._stop_reading()
        if not self._backlog:
            self.close()

    def reset(self) -> None:
        """End the connection on the guest's side, then on the host's."""
        if self._known_to_guest:
            self._device.send(self, Op.RST)
        self.guest_reset()

    def credit_request(self) -> None:
        """Answer the guest, which asks for its credit."""
        self._device.send(self, Op.CREDIT_UPDATE)

    def close(self) -> None:
        """Close the socket and drop the backlog, without a packet to the guest."""
        self._forget()
        self._release()

    def fill(self, views: list[memoryview]) -> int:
        """Read from the host's side into a receive buffer of the guest, and return the size."""
        self._scheduled = False
        if self._closed or not self._readable or self._read_done:
            return 0
        room = min(self._credit(), MAX_PAYLOAD)
        if room <= 0:
            self._ask_for_credit()
            return 0
        try:
            size = self._socket.recvmsg_into(_clip(views, room))[0]
        except BlockingIOError:
            self._readable = False
            return 0
        except OSError:
            size = 0
        if size == 0:
            self._end_of_input()
            return 0
        self._sent = (self._sent + size) & _MASK
        self._credit_requested = False
        self._schedule_read()
        return size

    def _credit(self) -> int:
        return self._guest_space - ((self._sent - self._guest_taken) & _MASK)

    def _ask_for_credit(self) -> None:
        if not self._credit_requested:
            self._credit_requested = True
            self._device.send(self, Op.CREDIT_REQUEST)

    def _schedule_read(self) -> None:
        wanted = self.established and self._readable and not self._read_done
        if wanted and not self._scheduled and (self._credit() > 0 or not self._credit_requested):
            self._scheduled = True
            self._device.want_read(self)

    def _on_event(self, events: int) -> None:
        if events & select.EPOLLHUP:
            self._hung_up = True
        if events & _READ_EVENTS:
            self._readable = True
        if events & _WRITE_EVENTS:
            self._writable = True
            self._flush()
        if self._closed:
            return
        if not self.established:
            self._check_abandoned()
        elif self._read_done and self._hung_up:
            self._end_of_input()
        else:
            self._schedule_read()

    def _check_abandoned(self) -> None:
        """Return whether the client left before the guest answered, and sent nothing."""
        if self._hung_up:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                if not self._socket.recv(1, socket.MSG_PEEK):
                    self.reset()

    def _end_of_input(self) -> None:
        self._read_done = True
        if not self._hung_up:
            self._device.send(self, Op.SHUTDOWN, SHUTDOWN_SEND)
            return
        # The host's side is closed in both directions. The guest answers with RST once its own
        # side has read everything: the ports stay in use until then, the socket does not.
        if self._known_to_guest:
            self._device.send(self, Op.SHUTDOWN, SHUTDOWN_BOTH)
        self._release()

    def _stop_reading(self) -> None:
        self._read_done = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def _write(self, views: list[memoryview]) -> int:
        """Write to the host's side and return how many bytes it took."""
        if not self._writable or self._write_broken or self._closed:
            return 0
        if len(views) > _MAX_VIEWS:
            views = [memoryview(b"".join(views))]
        try:
            return self._socket.sendmsg(views)
        except BlockingIOError:
            self._writable = False
        except OSError:
            # Bytes that the host's side sent before may still wait to be read: only this direction
            # ends.
            self._write_broken = True
            if self._known_to_guest:
                self._device.send(self, Op.SHUTDOWN, SHUTDOWN_RECEIVE)
        return 0

    def _flush(self) -> None:
        while self._backlog:
            with memoryview(self._backlog) as view:
                written = self._write([view])
            del self._backlog[:written]
            self._count_forwarded(written)
            if self._write_broken:
                self._drop_backlog()
            elif not written:
                return
        self._finish_writing()

    def _drop_backlog(self) -> None:
        self._count_forwarded(len(self._backlog))
        self._backlog.clear()

    def _finish_writing(self) -> None:
        if not self._guest_shutdown & SHUTDOWN_SEND:
            return
        if not self._known_to_guest:
            self.close()
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _count_forwarded(self, size: int) -> None:
        self._forwarded = (self._forwarded + size) & _MASK
        unannounced = (self._forwarded - self._announced) & _MASK
        if unannounced >= BUFFER_SIZE // 4 and self._known_to_guest:
            self._announced = self._forwarded
            self._device.send(self, Op.CREDIT_UPDATE)

    def _forget(self) -> None:
        if self._known_to_guest:
            self._known_to_guest = False
            self._device.forget(self)

    def _release(self) -> None:
        if not self._closed:
            self._closed = True
            self._backlog.clear()
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()


def _clip(views: list[memoryview], size: int) -> list[memoryview]:
    """Return the first `size` bytes of the views."""
    clipped: list[memoryview] = []
    for view in views[:_MAX_VIEWS]:
        piece = view[:size]
        if len(piece):
            clipped.append(piece)
            size -= len(piece)
        if size <= 0:
            break
    return clipped
