"""The files of a process's cgroup: their paths, reading, writing, and their formats.

Sources: the kernel's admin-guide/cgroup-v2.rst ("Interface Files", "Format") and
admin-guide/cgroup-v1/, cgroups(7), mountinfo in proc(5).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from kuasar_agent.linux.cgroup import ROOT, parse_proc_cgroup, version
from kuasar_agent.linux.files import read_text, write_text
from kuasar_agent.linux.mount import MountInfo, mounts

NO_LIMIT = (1 << 64) - 1
"""The number for `max`."""

_CHUNK = 1 << 16

_UINT32 = (1 << 32) - 1
_RDMA_KEYS = ("hca_handle", "hca_object")

# A list may come from the host: its cost is bounded. No kernel accepts a longer one.
_LIST_LIMIT = 1 << 16
_LIST_LENGTH = 1 << 16


class Cgroup(NamedTuple):
    """A cgroup, which on v1 is a directory in each of several hierarchies.

    The name of a file begins with its controller: `memory.stat` belongs to `memory`.
    """

    version: Literal[1, 2]
    directories: Mapping[str, str]
    """Paths by v1's names of the controllers; on v2 the only key is ""."""

    def exists(self) -> bool:
        """Return whether the cgroup has not been removed."""
        return any(map(os.path.isdir, self.directories.values()))

    def path(self, file: str) -> str | None:
        """Return the path of a file; None if its v1 controller is not mounted."""
        controller = "" if self.version == 2 else file.partition(".")[0]
        directory = self.directories.get(controller)
        return None if directory is None else f"{directory}/{file}"

    def has(self, file: str) -> bool:
        """Return whether the file exists."""
        path = self.path(file)
        return path is not None and os.path.exists(path)

    def read(self, file: str) -> str:
        """Return a file's text; an empty one if the kernel has no such file."""
        path = self.path(file)
        try:
            return "" if path is None else _read(path)
        except OSError:
            return ""

    def write(self, file: str, text: str) -> None:
        """Write a file.

        Raises:
            OSError: the kernel refuses; the error has the file's name.

        Blocks: a thread, while the kernel reclaims memory.
        """
        path = self.path(file)
        if path is None:
            raise OSError(errno.ENOENT, "controller not mounted", file)
        write_text(path, text)


def locate(pid: int, root: str = ROOT) -> Cgroup:
    """Return the cgroup that a process is in, without controllers not mounted below `root`.

    Raises:
        FileNotFoundError, ProcessLookupError: the process has ended.
    """
    paths = parse_proc_cgroup(read_text(f"/proc/{pid}/cgroup"))
    return find(paths, mounts(), version(root), root)


def find(
    paths: Mapping[str, str], table: Sequence[MountInfo], number: Literal[1, 2], root: str = ROOT
) -> Cgroup:
    """Return the cgroup of `locate` from paths of `parse_proc_cgroup` and entries of mountinfo."""
    found: dict[str, str] = {}
    for entry in table:
        if entry.target != root and not entry.target.startswith(f"{root}/"):
            continue
        if number == 2:
            names = [""] if entry.fstype == "cgroup2" else []
        else:
            names = list(entry.super_options) if entry.fstype == "cgroup" else []
        for name in names:
            if name in paths and (below := _below(paths[name], entry.root)) is not None:
                found[name] = entry.target + below
    return Cgroup(number, found)


def _below(path: str, root: str) -> str | None:
    """Return the part of a cgroup's path below a mount's root; None for a path outside of it."""
    root, path = root.rstrip("/"), path.rstrip("/")
    if path != root and not path.startswith(f"{root}/"):
        return None
    return path[len(root) :]


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, _CHUNK):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode(errors="replace")


def parse_number(text: str) -> int:
    """Return a single value: NO_LIMIT for `max`, 0 for an empty text."""
    text = text.strip()
    if text == "max":
        return NO_LIMIT
    return int(text) if text.isdecimal() else 0


def parse_flat(text: str) -> dict[str, int]:
    """Parse the kernel's "flat keyed" format, `KEY VALUE` in each line."""
    values = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values[key] = parse_number(value)
    return values


def parse_nested(text: str) -> dict[str, dict[str, str]]:
    """Parse the "nested keyed" format, `KEY SUBKEY=VALUE…` in each line, as of pressure files."""
    entries = {}
    for line in text.splitlines():
        key, *pairs = line.split()
        entries[key] = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return entries


def parse_rdma(text: str) -> list[tuple[str, int, int]]:
    """Return device, handles and objects (uint32) of each line of rdma.current or rdma.max."""
    entries = []
    for device, values in parse_nested(text).items():
        handles, objects = (min(parse_number(values.get(key, "")), _UINT32) for key in _RDMA_KEYS)
        entries.append((device, handles, objects))
    return entries


def parse_list(text: str) -> frozenset[int]:
    """Return the numbers of a list of CPUs or memory nodes such as `0-3,8`.

    Raises:
        ValueError: the text is not a list.
    """
    if len(text) > _LIST_LENGTH:
        raise ValueError("too long")
    mask = 0
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        start, end = int(first), int(last if dash else first)
        if not 0 <= start <= end <= _LIST_LIMIT:
            raise ValueError(f"{part} is out of range")
        mask |= (1 << end + 1) - (1 << start)
    return frozenset(number for number in range(mask.bit_length()) if mask >> number & 1)


def format_list(numbers: frozenset[int]) -> str:
    """Return the shortest text from which `parse_list` makes these numbers."""
    parts: list[str] = []
    ordered = sorted(numbers)
    while ordered:
        count = next((i for i, n in enumerate(ordered) if n != ordered[0] + i), len(ordered))
        first, last = ordered[0], ordered[count - 1]
        parts.append(str(first) if first == last else f"{first}-{last}")
        del ordered[:count]
    return ",".join(parts)


def page_sizes(path: str = "/sys/kernel/mm/hugepages") -> list[str]:
    """Return the kernel's sizes of huge pages as in hugetlb's file names: `2MB`, `1GB`."""
    try:
        names = os.listdir(path)
    except OSError:
        return []
    sizes = sorted(int(name.removeprefix("hugepages-").removesuffix("kB")) for name in names)
    return [_size_name(size) for size in sizes]


def _size_name(kib: int) -> str:
    for unit, shift in (("GB", 20), ("MB", 10)):
        if kib >= 1 << shift:
            return f"{kib >> shift}{unit}"
    return f"{kib}KB"
