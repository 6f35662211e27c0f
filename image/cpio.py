"""The newc cpio format, as the kernel reads it (Documentation/driver-api/early-userspace/
buffer-format.rst): a 110-byte header of hexadecimal fields, the name, the content, each padded
to four bytes, and a closing entry named TRAILER!!!.

Written without an owner, a time or a real inode number: equal trees give equal archives.
"""

from __future__ import annotations

import stat
import struct

from image.errors import BuildError
from image.tree import Node, Tree

MAGIC = b"070701"
HEADER_SIZE = 110
TRAILER = "TRAILER!!!"


def archive(tree: Tree) -> bytes:
    """Return the tree as one archive, sorted by path, so that a directory precedes its content."""
    parts = [
        _entry(number, path, node)
        for number, (path, node) in enumerate(sorted(tree.nodes.items()), start=1)
    ]
    parts.append(_entry(0, TRAILER, Node(0)))
    return b"".join(parts)


def _entry(inode: int, path: str, node: Node) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(node.mode) else 1
    fields = (
        inode,
        node.mode,
        0,  # uid
        0,  # gid
        links,
        0,  # mtime
        len(node.data),
        0,  # device that holds the file, major
        0,  # and minor
        *node.device,
        len(name),
        0,  # checksum, unused in this variant
    )
    header = MAGIC + b"".join(b"%08X" % value for value in fields)
    return _padded(header + name) + _padded(node.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def parse(data: bytes) -> Tree:
    """Read an archive, or several one after the other, as the kernel does.

    Raises:
        BuildError: the data is no such archive.
    """
    tree = Tree()
    offset = 0
    while offset < len(data):
        if data[offset : offset + 1] == b"\0":
            offset += 1
            continue
        header = data[offset : offset + HEADER_SIZE]
        try:
            values = struct.unpack(">13I", bytes.fromhex(header.removeprefix(MAGIC).decode()))
            mode, size, device, name_size = values[1], values[6], values[9:11], values[11]
            name_at = offset + HEADER_SIZE
            path = data[name_at : name_at + name_size - 1].decode()
        except (ValueError, struct.error):
            raise BuildError(f"no cpio header at offset {offset}") from None
        data_at = name_at + name_size
        data_at += -data_at % 4
        offset = data_at + size
        offset += -offset % 4
        if offset > len(data):
            raise BuildError(f"cpio archive ends inside {path}")
        if path == TRAILER:
            continue
        node = Node(mode, data[data_at : data_at + size], (device[0], device[1]))
        if not (node.is_directory and path in tree):
            tree.add(path, node)
    return tree
