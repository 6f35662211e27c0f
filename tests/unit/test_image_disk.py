"""The first three MiB of kuasar.img, which two kinds of driver read."""

from __future__ import annotations

import struct

import pytest

from image import disk

SIZE = disk.MULTIPLE


def partition(record: bytes) -> tuple[int, int, int]:
    """Type, first byte and length of the first partition (the MBR's entry at 446)."""
    assert len(record) == disk.SECTOR
    assert record[510:] == b"\x55\xaa"
    assert record[462:510] == bytes(48)
    _, kind, _, start, sectors = struct.unpack("<B3xB3sII", record[446:462])
    return kind, start * disk.SECTOR, sectors * disk.SECTOR


def test_both_boot_records_show_the_same_place() -> None:
    outer = partition(disk.boot_record(disk.ROOT, SIZE - disk.ROOT))
    inner = partition(disk.boot_record(disk.ROOT - disk.HEADER, SIZE - disk.ROOT))
    assert outer == (0x83, disk.ROOT, SIZE - disk.ROOT)
    assert inner == (0x83, disk.ROOT - disk.HEADER, SIZE - disk.ROOT)


def test_the_information_block_describes_what_follows_the_header() -> None:
    block = disk.information_block(SIZE)
    assert len(block) == 4096
    assert block[:16] == b"NVDIMM_PFN_INFO\0"
    assert block[32:48] == bytes(16)  # a namespace without labels has no parent
    data_at, pages = struct.unpack_from("<QQ", block, 56)
    assert data_at == 2 << 20
    assert data_at + pages * 4096 == SIZE


def test_the_information_block_is_sealed_with_its_checksum() -> None:
    block = disk.information_block(SIZE)
    (checksum,) = struct.unpack("<Q", block[-8:])
    assert checksum == disk.fletcher64(block[:-8] + bytes(8))
    assert checksum != disk.fletcher64(disk.information_block(2 * SIZE)[:-8] + bytes(8))


@pytest.mark.parametrize(
    ("words", "checksum"),
    [
        ([], 0),
        ([1, 2], (1 + 3) << 32 | 3),
        # Both sums wrap around: the low one at each word, the high one at the end.
        ([0xFFFFFFFF, 2], (0xFFFFFFFF + 1) % 2**32 << 32 | 1),
    ],
)
def test_the_checksum_is_the_drivers(words: list[int], checksum: int) -> None:
    assert disk.fletcher64(struct.pack(f"<{len(words)}I", *words)) == checksum
