"""The back end of the vhost-user protocol, for any virtio device with split rings.

Source: QEMU's docs/interop/vhost-user.rst. A message is a header of three little-endian 32-bit
words (request, flags, size of the body), a body, and descriptors beside it. A front end that breaks
the protocol loses its connection; it may connect again.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from kuasar_host.vsock.listener import Listener
from kuasar_host.vsock.loop import Loop
from kuasar_host.vsock.memory import BadAddress, GuestMemory, RegionSpec
from kuasar_host.vsock.virtqueue import MAX_SIZE, Virtqueue
from kuasar_host.vsock.vring import Vring, VringError

F_VERSION_1 = 1 << 32
F_PROTOCOL_FEATURES = 1 << 30
PROTOCOL_F_REPLY_ACK = 1 << 3
PROTOCOL_F_CONFIG = 1 << 9

_PROTOCOL_FEATURES = PROTOCOL_F_REPLY_ACK | PROTOCOL_F_CONFIG
_HEADER = struct.Struct("<III")
_U64 = struct.Struct("<Q")
_VRING_STATE = struct.Struct("<II")
_VRING_ADDRESSES = struct.Struct("<IIQQQQ")
_REGION = struct.Struct("<QQQQ")
_CONFIG = struct.Struct("<III")
_FLAG_VERSION = 1
_FLAG_REPLY = 4
_FLAG_NEED_REPLY = 8
_VRING_INDEX_MASK = 0xFF
_VRING_NO_FD = 0x100
_MAX_BODY = 4096
_MAX_REGIONS = 8


class Request(IntEnum):
    """Requests of the front end (QEMU's docs/interop/vhost-user.rst)."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    SET_VRING_ENABLE = 18
    GET_CONFIG = 24


class VirtioDevice(Protocol):
    """The device that the rings belong to."""

    @property
    def features(self) -> int:
        """Return the virtio feature bits of the device itself."""

    @property
    def config(self) -> bytes:
        """Return the configuration space."""

    @property
    def queue_count(self) -> int:
        """Return how many queues the back end serves."""

    def set_queue(self, index: int, queue: Virtqueue | None) -> None:
        """Take a queue that runs from now on; None: the one before must not be used any more."""


class ProtocolError(Exception):
    """A message of the front end that violates the protocol."""


class Session:
    """One connection from a front end (QEMU)."""

    def __init__(
        self, loop: Loop, sock: socket.socket, device: VirtioDevice, closed: Callable[[], None]
    ) -> None:
        """Take ownership of `sock`; `closed` is called once, after everything was released."""
        self._loop = loop
        self._socket = sock
        self._device = device
        self._closed = closed
        self._memory = GuestMemory(())
        self._vrings = [Vring(loop) for _ in range(device.queue_count)]
        self._reply_ack = False
        self._input = bytearray()
        self._fds: list[int] = []
        self._handlers: dict[int, Callable[[bytes], bytes | None]] = {
            Request.GET_FEATURES: self._get_features,
            Request.SET_FEATURES: self._ignore,
            Request.SET_OWNER: self._ignore,
            Request.RESET_OWNER: self._reset_owner,
            Request.SET_MEM_TABLE: self._set_mem_table,
            Request.SET_VRING_NUM: self._set_vring_num,
            Request.SET_VRING_ADDR: self._set_vring_addr,
            Request.SET_VRING_BASE: self._set_vring_base,
            Request.GET_VRING_BASE: self._get_vring_base,
            Request.SET_VRING_KICK: self._set_vring_kick,
            Request.SET_VRING_CALL: self._set_vring_call,
            Request.SET_VRING_ERR: self._set_vring_err,
            Request.GET_PROTOCOL_FEATURES: self._get_protocol_features,
            Request.SET_PROTOCOL_FEATURES: self._set_protocol_features,
            Request.SET_VRING_ENABLE: self._set_vring_enable,
            Request.GET_CONFIG: self._get_config,
        }
        sock.setblocking(False)
        loop.watch(sock.fileno(), select.EPOLLIN, self._on_readable)

    def close(self) -> None:
        """Stop the queues, unmap the memory and close every descriptor."""
        self._stop_all()
        for vring in self._vrings:
            vring.close()
        self._memory.close()
        self._close_fds()
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._closed()

    def _on_readable(self, _events: int) -> None:
        try:
            while self._receive():
                pass
        except BlockingIOError:
            pass
        except EOFError:
            self.close()
        except (ProtocolError, VringError, BadAddress, struct.error, ValueError, OSError) as error:
            print(f"vsock: front end dropped: {error}", file=sys.stderr, flush=True)
            self.close()

    def _receive(self) -> bool:
        """Read no further than one message, so that descriptors stay with their message."""
        wanted = _HEADER.size
        if len(self._input) >= wanted:
            wanted += _HEADER.unpack_from(self._input)[2]
        if wanted > _HEADER.size + _MAX_BODY:
            raise ProtocolError(f"message of {wanted} bytes")
        if len(self._input) < wanted:
            data, fds, _flags, _address = socket.recv_fds(
                self._socket, wanted - len(self._input), _MAX_REGIONS, socket.MSG_CMSG_CLOEXEC
            )
            self._fds += fds
            if not data:
                raise EOFError
            self._input += data
            return True
        request, flags, _size = _HEADER.unpack_from(self._input)
        body = bytes(self._input[_HEADER.size :])
        self._input.clear()
        self._dispatch(request, flags, body)
        self._close_fds()
        return True

    def _dispatch(self, request: int, flags: int, body: bytes) -> None:
        handler = self._handlers.get(request)
        if handler is None:
            print(f"vsock: vhost-user request {request} ignored", file=sys.stderr, flush=True)
        reply = None if handler is None else handler(body)
        if reply is None and self._reply_ack and flags & _FLAG_NEED_REPLY:
            reply = _U64.pack(0 if handler else 1)
        if reply is not None:
            message = _HEADER.pack(request, _FLAG_VERSION | _FLAG_REPLY, len(reply)) + reply
            if self._socket.send(message) != len(message):
                raise ProtocolError("front end does not read its replies")

    def _close_fds(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def _ignore(self, _body: bytes) -> None:
        """Do nothing: the front end only reports its choice."""

    def _get_features(self, _body: bytes) -> bytes:
        return _U64.pack(self._device.features | F_VERSION_1 | F_PROTOCOL_FEATURES)

    def _get_protocol_features(self, _body: bytes) -> bytes:
        return _U64.pack(_PROTOCOL_FEATURES)

    def _set_protocol_features(self, body: bytes) -> None:
        self._reply_ack = bool(_U64.unpack(body)[0] & PROTOCOL_F_REPLY_ACK)

    def _get_config(self, body: bytes) -> bytes:
        offset, size, flags = _CONFIG.unpack_from(body)
        if size > _MAX_BODY - _CONFIG.size:
            raise ProtocolError(f"{size} bytes of configuration asked for")
        data = self._device.config[offset : offset + size].ljust(size, b"\0")
        return _CONFIG.pack(offset, size, flags) + data

    def _reset_owner(self, _body: bytes) -> None:
        self._stop_all()

    def _set_mem_table(self, body: bytes) -> None:
        (count,) = struct.unpack_from("<I", body)
        if count != len(self._fds):
            raise ProtocolError(f"{count} memory regions with {len(self._fds)} descriptors")
        specs = [RegionSpec(*_REGION.unpack_from(body, 8 + _REGION.size * i)) for i in range(count)]
        old, self._memory = self._memory, GuestMemory(list(zip(specs, self._fds, strict=True)))
        # A table for hot-plugged memory arrives while the rings run, which continue in the new one.
        for index, vring in enumerate(self._vrings):
            if vring.queue is not None:
                stale = vring.detach()
                self._device.set_queue(index, vring.start(self._memory))
                stale.release()
        old.close()

    def _vring(self, index: int) -> Vring:
        if index >= len(self._vrings):
            raise ProtocolError(f"ring {index} does not exist")
        return self._vrings[index]

    def _set_vring_num(self, body: bytes) -> None:
        index, size = _VRING_STATE.unpack(body)
        if not 0 < size <= MAX_SIZE or size & (size - 1):
            raise ProtocolError(f"ring of {size} entries")
        self._vring(index).size = size

    def _set_vring_addr(self, body: bytes) -> None:
        index, _flags, descriptors, used, available, _log = _VRING_ADDRESSES.unpack(body)
        self._vring(index).set_addresses(descriptors, used, available)

    def _set_vring_base(self, body: bytes) -> None:
        index, base = _VRING_STATE.unpack(body)
        self._vring(index).next_available = base & 0xFFFF

    def _get_vring_base(self, body: bytes) -> bytes:
        index, _unused = _VRING_STATE.unpack(body)
        vring = self._vring(index)
        self._stop(index)
        vring.close()
        return _VRING_STATE.pack(index, vring.next_available)

    def _take_fd(self, body: bytes) -> tuple[int, int | None]:
        (word,) = _U64.unpack(body)
        if word & _VRING_NO_FD:
            return word & _VRING_INDEX_MASK, None
        if len(self._fds) != 1:
            raise ProtocolError(f"{len(self._fds)} descriptors where one belongs")
        return word & _VRING_INDEX_MASK, self._fds[0]

    def _set_vring_kick(self, body: bytes) -> None:
        index, fd = self._take_fd(body)
        if fd is None:
            raise ProtocolError("polling a ring is not supported")
        self._vring(index).set_kick(os.dup(fd))
        self._start(index)

    def _set_vring_call(self, body: bytes) -> None:
        index, fd = self._take_fd(body)
        self._vring(index).set_call(None if fd is None else os.dup(fd))

    def _set_vring_err(self, body: bytes) -> None:
        index, fd = self._take_fd(body)
        self._vring(index).set_error(None if fd is None else os.dup(fd))

    def _set_vring_enable(self, body: bytes) -> None:
        index, enable = _VRING_STATE.unpack(body)
        vring = self._vring(index)
        vring.enabled = bool(enable)
        if enable:
            self._start(index)
        else:
            self._stop(index)

    def _start(self, index: int) -> None:
        vring = self._vrings[index]
        if vring.queue is None and vring.complete():
            self._device.set_queue(index, vring.start(self._memory))

    def _stop(self, index: int) -> None:
        self._device.set_queue(index, None)
        vring = self._vrings[index]
        if vring.queue is not None:
            vring.detach().release()

    def _stop_all(self) -> None:
        for index in range(len(self._vrings)):
            self._stop(index)


def serve(loop: Loop, listener: Listener, device: VirtioDevice) -> None:
    """Accept one front end at a time; the next waits in the backlog."""

    def connected(sock: socket.socket) -> None:
        listener.pause()
        Session(loop, sock, device, listener.resume)

    listener.accept(connected)
