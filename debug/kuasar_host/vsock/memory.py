"""The guest's memory as the vhost-user front end shares it: mapped files, two address spaces."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Sequence
from typing import NamedTuple


class BadAddress(ValueError):
    """An address range that is not wholly inside one shared region."""


class RegionSpec(NamedTuple):
    """One entry of a vhost-user memory table; addresses and sizes in bytes."""

    guest_address: int
    size: int
    user_address: int
    file_offset: int


class _Region:
    """One mapped region."""

    def __init__(self, spec: RegionSpec, fd: int) -> None:
        self.guest_address = spec.guest_address
        self.user_address = spec.user_address
        self.size = spec.size
        # The block size of a hugetlbfs file is its page size, to which an offset must be aligned.
        granule = max(mmap.ALLOCATIONGRANULARITY, os.fstat(fd).st_blksize)
        skip = spec.file_offset % granule
        try:
            self._map = mmap.mmap(fd, spec.size + skip, offset=spec.file_offset - skip)
        except OverflowError as error:
            raise ValueError(str(error)) from error
        self.bytes = memoryview(self._map)[skip:]

    def close(self) -> None:
        """Unmap the region."""
        self.bytes.release()
        # A view that is still in use keeps the mapping until it is released.
        with contextlib.suppress(BufferError):
            self._map.close()


class GuestMemory:
    """The guest's memory. Its views have to be released before it is closed."""

    def __init__(self, regions: Sequence[tuple[RegionSpec, int]]) -> None:
        """Map each (region, descriptor); the caller keeps the descriptors.

        Raises OSError or ValueError when a region cannot be mapped, a file shorter than its region
        included.
        """
        self._regions: list[_Region] = []
        try:
            for spec, fd in regions:
                if spec.size == 0:
                    raise ValueError("empty memory region")
                self._regions.append(_Region(spec, fd))
        except BaseException:
            self.close()
            raise

    def guest(self, address: int, length: int) -> memoryview:
        """Return the bytes at a guest physical address, as in the rings' descriptors."""
        for region in self._regions:
            offset = address - region.guest_address
            if offset >= 0 and offset + length <= region.size:
                return region.bytes[offset : offset + length]
        raise BadAddress(f"guest address {address:#x}+{length:#x} is not shared memory")

    def user(self, address: int, length: int) -> memoryview:
        """Return the bytes at an address of the front end's process, as in ring addresses."""
        for region in self._regions:
            offset = address - region.user_address
            if offset >= 0 and offset + length <= region.size:
                return region.bytes[offset : offset + length]
        raise BadAddress(f"user address {address:#x}+{length:#x} is not shared memory")

    def close(self) -> None:
        """Unmap all regions."""
        for region in self._regions:
            region.close()
        self._regions.clear()
