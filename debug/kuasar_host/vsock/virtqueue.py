"""The device's side of a split virtqueue (virtio 1.2, section 2.7).

Indices are read and written with single 16-bit accesses. The order of loads and of stores is the
one that x86 gives; the one place that needs more has a barrier.
"""

from __future__ import annotations

import struct
import threading
from typing import NamedTuple, Protocol

from kuasar_host.vsock.memory import BadAddress, GuestMemory

MAX_SIZE = 32768

_DESCRIPTOR = struct.Struct("<QIHH")
_USED_ELEMENT = struct.Struct("<II")
_F_NEXT = 1
_F_WRITE = 2
_F_INDIRECT = 4
_AVAIL_F_NO_INTERRUPT = 1


class RingError(Exception):
    """A ring that violates the specification; it cannot be used until a reset."""


class RingAddresses(NamedTuple):
    """Addresses of the three parts of a ring, in the front end's address space."""

    descriptors: int
    used: int
    available: int


class RingSignals(Protocol):
    """The other side of a ring, as the device notifies it."""

    def interrupt(self) -> None:
        """Tell the driver that buffers were returned."""

    def error(self) -> None:
        """Tell the front end that the ring is broken."""


class Chain(NamedTuple):
    """A buffer of the driver; `head` identifies it when it is returned."""

    head: int
    readable: list[memoryview]
    writable: list[memoryview]


class Virtqueue:
    """One split virtqueue, from which the device takes buffers and to which it returns them."""

    def __init__(
        self,
        memory: GuestMemory,
        size: int,
        addresses: RingAddresses,
        next_available: int,
        signals: RingSignals,
    ) -> None:
        """Map the ring.

        Raises:
            BadAddress: a part of it is outside the shared memory.
        """
        self.size = size
        self.signals = signals
        self.next_available = next_available
        self._memory = memory
        self._fence = threading.Lock()
        available = memory.user(addresses.available, 4 + 2 * size)
        used = memory.user(addresses.used, 4 + 8 * size)
        self._descriptors = memory.user(addresses.descriptors, _DESCRIPTOR.size * size)
        self._available = available.cast("H")
        self._used_header = used[:4].cast("H")
        self._used_elements = used[4:]
        self._used_index = self._used_header[1]
        self._views = [available, used, self._descriptors, self._available]
        self._views += [self._used_header, self._used_elements]

    def release(self) -> None:
        """Release the views of guest memory; the queue cannot be used afterwards."""
        for view in reversed(self._views):
            view.release()

    def pending(self) -> bool:
        """Return whether the driver has made buffers available.

        Raises:
            RingError: the ring violates the specification.
        """
        waiting = (self._available[1] - self.next_available) & 0xFFFF
        if waiting > self.size:
            raise RingError(f"{waiting} buffers in a ring of {self.size}")
        return waiting > 0

    def pop(self) -> Chain | None:
        """Return the next buffer, or None. Raises as `pending`."""
        if not self.pending():
            return None
        head = self._available[2 + self.next_available % self.size]
        self.next_available = (self.next_available + 1) & 0xFFFF
        return self._chain(head)

    def unpop(self) -> None:
        """Undo the last `pop`: its buffer was not used."""
        self.next_available = (self.next_available - 1) & 0xFFFF

    def push(self, head: int, written: int) -> None:
        """Give a buffer back to the driver, with `written` bytes in it."""
        offset = _USED_ELEMENT.size * (self._used_index % self.size)
        _USED_ELEMENT.pack_into(self._used_elements, offset, head, written)
        self._used_index = (self._used_index + 1) & 0xFFFF
        self._used_header[1] = self._used_index

    def interrupt(self) -> None:
        """Tell the driver that buffers were pushed, unless it has turned that off."""
        # The store of the index must be visible before the flag is read, or both sides may miss
        # each other. Taking a lock is a full barrier on x86.
        with self._fence:
            wanted = not self._available[0] & _AVAIL_F_NO_INTERRUPT
        if wanted:
            self.signals.interrupt()

    def _chain(self, head: int) -> Chain:
        chain = Chain(head, [], [])
        index = head
        for _ in range(self.size):
            if index >= self.size:
                raise RingError(f"descriptor {index} in a ring of {self.size}")
            address, length, flags, following = _DESCRIPTOR.unpack_from(
                self._descriptors, index * _DESCRIPTOR.size
            )
            if flags & _F_INDIRECT:
                raise RingError("indirect descriptor, which was not offered")
            try:
                view = self._memory.guest(address, length)
            except BadAddress as error:
                raise RingError(str(error)) from error
            (chain.writable if flags & _F_WRITE else chain.readable).append(view)
            if not flags & _F_NEXT:
                return chain
            index = following
        raise RingError("descriptor chain is a loop")
