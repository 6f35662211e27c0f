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
    """Return the place of a path when /bin, /sbin, /lib and /lib64 are links into /usr."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BuildError(f"path with '..': {path}")
    if len(parts) > 1 and parts[0] in MERGED:
        parts[:1] = MERGED[parts[0]].split("/")
    return "/".join(parts)


@dataclass
class Tree:
    """A mapping of paths without a leading slash to inodes. Missing parents are created."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def __contains__(self, path: str) -> bool:
        return merged(path) in self.nodes

    def __getitem__(self, path: str) -> Node:
        return self.nodes[merged(path)]

    def add(self, path: str, node: Node) -> None:
        """Put `node` at `path`.

        Raises:
            BuildError: a different inode is there already.
        """
        path = merged(path)
        there = self.nodes.get(path)
        if there is not None and replace(there, group="") != replace(node, group=""):
            raise BuildError(f"two different files at /{path}")
        parent = path.rpartition("/")[0]
        if parent and parent not in self.nodes:
            self.directory(parent)
        self.nodes.setdefault(path, node)

    def file(self, path: str, data: bytes, *, mode: int = 0o644, group: str = "") -> None:
        """Add a regular file."""
        self.add(path, Node(stat.S_IFREG | mode, data, group=group))

    def link(self, path: str, target: str, *, group: str = "") -> None:
        """Add a symbolic link."""
        self.add(path, Node(stat.S_IFLNK | 0o777, target.encode(), group=group))

    def directory(self, path: str, *, mode: int = 0o755) -> None:
        """Add a directory."""
        self.add(path, Node(stat.S_IFDIR | mode))

    def remove(self, path: str) -> Node:
        """Remove an inode and return it."""
        return self.nodes.pop(merged(path))

    def update(self, other: Tree) -> None:
        """Add another tree. Raises BuildError where both have different files."""
        for path, node in other.nodes.items():
            if not (node.is_directory and path in self.nodes):
                self.add(path, node)

    def files(self) -> Iterator[tuple[str, Node]]:
        """Return the regular files, sorted by path."""
        return ((path, node) for path, node in sorted(self.nodes.items()) if node.is_file)

    def matching(self, pattern: str) -> list[str]:
        """Return the paths that a shell pattern matches, and all below matching directories."""
        inside = f"{pattern}/*"
        return [
            path
            for path in sorted(self.nodes)
            if fnmatchcase(path, pattern) or fnmatchcase(path, inside)
        ]

    def sizes(self) -> dict[str, int]:
        """Return the bytes of file content per group."""
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
