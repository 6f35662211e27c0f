"""The kernel's file: an uncompressed vmlinux with a PVH entry, from Debian's bzImage."""

from __future__ import annotations

import lzma
import struct

from image import elf
from image.errors import BuildError

XZ_MAGIC = b"\xfd7zXZ\0"
XEN_ELFNOTE_PHYS32_ENTRY = 18


def vmlinux(bzimage: bytes) -> bytes:
    """Return the unpacked payload of a bzImage.

    Source: Documentation/arch/x86/boot.rst, setup_sects, payload_offset and payload_length. The
    last four bytes of the payload are the unpacked size.

    Raises:
        BuildError: no bzImage, a compression other than XZ, damage, or no PVH entry.
    """
    if bzimage[0x202:0x206] != b"HdrS":
        raise BuildError("the kernel is not a bzImage")
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = bzimage[start : start + length]
    if not payload.startswith(XZ_MAGIC):
        raise BuildError("the kernel's payload is not compressed with XZ")
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    try:
        image = decompressor.decompress(payload)
    except lzma.LZMAError as error:
        raise BuildError(f"the kernel's payload is damaged: {error}") from None
    if not decompressor.eof or decompressor.unused_data != struct.pack("<I", len(image)):
        raise BuildError("the kernel's payload is cut short")
    return checked(image)


def checked(image: bytes) -> bytes:
    """Return the vmlinux unchanged.

    Raises:
        BuildError: the kernel has no PVH entry, by which hypervisors start it uncompressed.
    """
    if ("Xen", XEN_ELFNOTE_PHYS32_ENTRY) not in {note[:2] for note in elf.notes(image)}:
        raise BuildError("the kernel has no PVH entry, a microVM cannot start it uncompressed")
    return image
