"""The parts of ELF (System V gABI, 64-bit little-endian) that the image build reads."""

from __future__ import annotations

import struct

from image.errors import BuildError

MAGIC = b"\x7fELF\x02\x01"
PT_LOAD = 1
PT_DYNAMIC = 2
PT_NOTE = 4
DT_NULL = 0
DT_NEEDED = 1
DT_STRTAB = 5


def is_elf(data: bytes) -> bool:
    """Return whether this is a 64-bit little-endian ELF file."""
    return data.startswith(MAGIC)


def _segments(data: bytes) -> list[tuple[int, int, int, int]]:
    """Return type, file offset, virtual address and size in the file of each program header."""
    if not is_elf(data):
        raise BuildError("not a 64-bit little-endian ELF file")
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    segments = []
    for index in range(count):
        kind, _flags, at, address, _physical, length = struct.unpack_from(
            "<IIQQQQ", data, offset + index * size
        )
        segments.append((kind, at, address, length))
    return segments


def needed(data: bytes) -> list[str]:
    """Return the names of the shared libraries that the file needs (DT_NEEDED)."""
    segments = _segments(data)
    dynamic = next(((at, length) for kind, at, _, length in segments if kind == PT_DYNAMIC), None)
    if dynamic is None:
        return []
    names: list[int] = []
    strings = 0
    for tag, value in struct.iter_unpack("<QQ", data[dynamic[0] : sum(dynamic)]):
        if tag == DT_NULL:
            break
        if tag == DT_NEEDED:
            names.append(value)
        elif tag == DT_STRTAB:
            strings = value
    table = _file_offset(segments, strings)
    return [_string(data, table + name) for name in names]


def _file_offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, at, start, length in segments:
        if kind == PT_LOAD and start <= address < start + length:
            return at + address - start
    raise BuildError(f"ELF address {address:#x} is in no segment")


def _string(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()


def stripped(data: bytes) -> bytes:
    """Return the file without its section headers and the data behind the last segment.

    The kernel and the dynamic loader look at segments only; symbols for debuggers and debug
    information lie behind them.
    """
    end = max((at + length for _, at, _, length in _segments(data)), default=len(data))
    program_headers, size_and_count = (
        struct.unpack_from("<Q", data, 32)[0],
        struct.unpack_from("<HH", data, 54),
    )
    end = max(end, program_headers + size_and_count[0] * size_and_count[1])
    head = bytearray(data[:end])
    struct.pack_into("<Q", head, 40, 0)  # e_shoff
    struct.pack_into("<HHH", head, 58, 0, 0, 0)  # e_shentsize, e_shnum, e_shstrndx
    return bytes(head)


def notes(data: bytes) -> list[tuple[str, int, bytes]]:
    """Return owner, type and content of each ELF note."""
    found = []
    for kind, at, _, length in _segments(data):
        if kind != PT_NOTE:
            continue
        offset = at
        while offset + 12 <= at + length:
            name_size, size, number = struct.unpack_from("<III", data, offset)
            name_at = offset + 12
            data_at = name_at + name_size + -name_size % 4
            owner = data[name_at : name_at + name_size].rstrip(b"\0").decode(errors="replace")
            found.append((owner, number, data[data_at : data_at + size]))
            offset = data_at + size + -size % 4
    return found
