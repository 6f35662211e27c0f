"""vmlinux out of a bzImage, with kernels made up to the boot protocol's layout."""

from __future__ import annotations

import lzma
import struct

import pytest

from image import kernel
from image.errors import BuildError

SETUP_SECTORS = 4
PAYLOAD_OFFSET = 700


def an_elf(note_type: int) -> bytes:
    """A header, one PT_NOTE segment, and in it one note of Xen's."""
    note = struct.pack("<III", 4, 8, note_type) + b"Xen\0" + struct.pack("<Q", 0x1000000)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 4, 4, 64 + 56, 0, 0, len(note), len(note), 4)
    return header + segment + note


def a_bzimage(image: bytes, payload: bytes | None = None) -> bytes:
    if payload is None:
        payload = lzma.compress(image) + struct.pack("<I", len(image))
    setup = bytearray((SETUP_SECTORS + 1) * 512)
    setup[0x1F1] = SETUP_SECTORS
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", setup, 0x248, PAYLOAD_OFFSET, len(payload))
    return bytes(setup) + b"\x90" * PAYLOAD_OFFSET + payload + b"\xcc" * 64


def test_the_payload_is_unpacked() -> None:
    image = an_elf(kernel.XEN_ELFNOTE_PHYS32_ENTRY)
    assert kernel.vmlinux(a_bzimage(image)) == image


def test_a_kernel_without_a_pvh_entry_is_refused() -> None:
    with pytest.raises(BuildError, match="PVH"):
        kernel.vmlinux(a_bzimage(an_elf(note_type=6)))


def test_what_is_no_kernel_is_refused() -> None:
    with pytest.raises(BuildError, match="bzImage"):
        kernel.vmlinux(b"\0" * 4096)


def test_another_compression_is_named_as_the_reason() -> None:
    with pytest.raises(BuildError, match="XZ"):
        kernel.vmlinux(a_bzimage(b"", payload=b"\x28\xb5\x2f\xfd" + b"\0" * 60))


def test_a_damaged_payload_is_refused() -> None:
    image = an_elf(kernel.XEN_ELFNOTE_PHYS32_ENTRY)
    payload = bytearray(lzma.compress(image) + struct.pack("<I", len(image)))
    payload[40] ^= 0xFF
    with pytest.raises(BuildError, match="damaged"):
        kernel.vmlinux(a_bzimage(image, bytes(payload)))


def test_a_payload_that_ends_early_is_refused() -> None:
    image = an_elf(kernel.XEN_ELFNOTE_PHYS32_ENTRY)
    payload = lzma.compress(image)[:-8]
    with pytest.raises(BuildError, match="cut short"):
        kernel.vmlinux(a_bzimage(image, payload))
