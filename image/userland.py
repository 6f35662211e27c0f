"""The root file system without the agent and without kernel modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from image import elf, packages, wheels
from image.chroot import Chroot, unpacked
from image.contents import IMPORTS, LIBRARIES, OMISSIONS, Package
from image.errors import BuildError
from image.files import progress
from image.skeleton import add_standins, skeleton
from image.tree import Tree


def build(
    chosen: Sequence[Package], debs: Mapping[str, Path], wheel_files: Sequence[Path]
) -> tuple[Tree, dict[str, int]]:
    """Assemble, prune, compile and test the tree of the chosen packages.

    Returns:
        The tree, and the bytes of files that each omission saved.

    Raises:
        BuildError: a listed item is missing, useless, unresolved or cannot be imported.
    """
    progress("unpacking Debian packages and wheels")
    tree = skeleton()
    for package in chosen:
        if package.take:
            packages.take(tree, debs[package.name], package.take, package.group)
        for path, target in package.links:
            tree.link(path, target, group=package.group)
    for wheel in wheel_files:
        wheels.unpack(tree, wheel)
    saved = omit(tree)
    add_standins(tree)
    add_libraries(tree, debs, [package for package in chosen if not package.take])
    progress("compiling Python modules and trying them in a chroot")
    with unpacked(tree) as chroot:
        chroot.compile(tree, docstrings=False)
        chroot.check_imports(IMPORTS)
        add_applets(tree, chroot)
    return tree, saved


def omit(tree: Tree) -> dict[str, int]:
    """Remove the omissions of image/contents.py and return the bytes saved per reason.

    Raises:
        BuildError: a pattern matches nothing: the packages have changed since it was written.
    """
    saved: dict[str, int] = {}
    idle: list[str] = []
    for omission in OMISSIONS:
        covered = _matching(tree, omission.patterns, idle)
        kept = _matching(tree, omission.but, idle)
        kept |= {str(parent) for path in kept for parent in PurePath(path).parents}
        saved[omission.reason] = sum(len(tree.remove(path).data) for path in covered - kept)
    if idle:
        raise BuildError(f"omissions that match nothing: {' '.join(idle)}")
    return saved


def _matching(tree: Tree, patterns: Sequence[str], idle: list[str]) -> set[str]:
    """Return the paths that the patterns match; add patterns without a match to `idle`."""
    found: set[str] = set()
    for pattern in patterns:
        paths = tree.matching(pattern)
        found.update(paths)
        if not paths:
            idle.append(pattern)
    return found


def add_libraries(tree: Tree, debs: Mapping[str, Path], listed: Sequence[Package]) -> None:
    """Add the shared libraries that the tree's programs need, and no others.

    Raises:
        BuildError: no listed package has a needed library, or a listed package is useless.
    """
    found = Tree()
    origin = {}
    for package in listed:
        before = set(found.nodes)
        packages.take(found, debs[package.name], (f"{LIBRARIES}/*.so*",), package.group)
        origin.update(dict.fromkeys(found.nodes.keys() - before, package.name))
    useful = set()
    queue = [(path, node.data) for path, node in tree.files() if elf.is_elf(node.data)]
    while queue:
        user, data = queue.pop()
        for name in elf.needed(data):
            path = f"{LIBRARIES}/{name}"
            if path in tree:
                continue
            if path not in found:
                raise BuildError(f"/{user} needs {name}, which is in no listed package")
            useful.add(origin[path])
            tree.add(path, found[path])
            if found[path].is_link:
                path = f"{LIBRARIES}/{found[path].data.decode()}"
                tree.add(path, found[path])
            queue.append((path, found[path].data))
    idle = {package.name for package in listed} - useful
    if idle:
        raise BuildError(f"nothing needs the libraries of {' '.join(sorted(idle))}")


def add_applets(tree: Tree, chroot: Chroot) -> None:
    """Link busybox's commands to it where the tree has no program of that name."""
    programs = {path.rpartition("/")[2] for path in tree.matching("usr/*bin")}
    for line in chroot.run("/usr/bin/busybox", "--list-full").decode().splitlines():
        if line.rpartition("/")[2] not in programs | {"linuxrc", "busybox"}:
            tree.link(line, "/usr/bin/busybox")
