"""A root file system held in memory, with the merged-/usr layout of Debian.

Nothing of the building machine enters it: no owner, no time, no inode, no umask.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from image.errors import BuildError

MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


@dataclass(frozen=True)
class Node:
    """One inode: `mode` has the type bits; `data` is a file's content or a link's target."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    group: str = ""

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


def merged(path: str) -> str:
    """The place of an absolute or relative path when /bin, /sbin, /lib and /lib64 are links."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BuildError(f"path with '..': {path}")
    if len(parts) > 1 and parts[0] in MERGED:
        parts[:1] = MERGED[parts[0]].split("/")
    return "/".join(parts)


@dataclass
class Tree:
    """Paths without a leading slash, and what is there. Parents come into being by themselves."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def __contains__(self, path: str) -> bool:
        return merged(path) in self.nodes

    def __getitem__(self, path: str) -> Node:
        return self.nodes[merged(path)]

    def add(self, path: str, node: Node) -> None:
        """Put `node` at `path`.

        Raises:
            BuildError: something else is there already.
        """
        path = merged(path)
        there = self.nodes.get(path)
        if there is not None and replace(there, group="") != replace(node, group=""):
            raise BuildError(f"two different things at /{path}")
        parent = path.rpartition("/")[0]
        if parent and parent not in self.nodes:
            self.directory(parent)
        self.nodes.setdefault(path, node)

    def file(self, path: str, data: bytes, *, mode: int = 0o644, group: str = "") -> None:
        self.add(path, Node(stat.S_IFREG | mode, data, group=group))

    def link(self, path: str, target: str, *, group: str = "") -> None:
        self.add(path, Node(stat.S_IFLNK | 0o777, target.encode(), group=group))

    def directory(self, path: str, *, mode: int = 0o755) -> None:
        self.add(path, Node(stat.S_IFDIR | mode))

    def remove(self, path: str) -> Node:
        return self.nodes.pop(merged(path))

    def update(self, other: Tree) -> None:
        for path, node in other.nodes.items():
            if not (node.is_directory and path in self.nodes):
                self.add(path, node)

    def files(self) -> Iterator[tuple[str, Node]]:
        """The regular files in order of their paths."""
        return ((path, node) for path, node in sorted(self.nodes.items()) if node.is_file)

    def matching(self, pattern: str) -> list[str]:
        """The paths that a shell pattern covers; a pattern for a directory covers what is in it."""
        inside = f"{pattern}/*"
        return [
            path
            for path in sorted(self.nodes)
            if fnmatchcase(path, pattern) or fnmatchcase(path, inside)
        ]

    def sizes(self) -> dict[str, int]:
        """Bytes of file content per group."""
        totals: dict[str, int] = {}
        for node in self.nodes.values():
            if node.is_file:
                totals[node.group] = totals.get(node.group, 0) + len(node.data)
        return totals

    def write_to(self, root: Path) -> None:
        """Create the tree below an empty directory; device nodes are left out."""
        for path, node in sorted(self.nodes.items()):
            place = root / path
            if node.is_directory:
                place.mkdir()
                place.chmod(stat.S_IMODE(node.mode))
            elif node.is_link:
                place.symlink_to(node.data.decode())
            elif node.is_file:
                place.write_bytes(node.data)
                place.chmod(stat.S_IMODE(node.mode))
