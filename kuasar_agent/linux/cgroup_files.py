"""The files of a process's cgroup: where they are, reading, writing, and their formats.

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
"""What `max` is in a number."""

_CHUNK = 1 << 16

_UINT32 = (1 << 32) - 1
_RDMA_KEYS = ("hca_handle", "hca_object")

# A list may come from the host, so that its cost is bounded; no kernel takes longer ones.
_LIST_LIMIT = 1 << 16
_LIST_LENGTH = 1 << 16


class Cgroup(NamedTuple):
    """One cgroup, which on v1 is a directory in each of several hierarchies.

    A file's name says which: `memory.stat` belongs to the controller `memory`.
    """

    version: Literal[1, 2]
    directories: Mapping[str, str]
    """By v1's names of the controllers; on v2 the only key is ""."""

    def exists(self) -> bool:
        """Whether it has not been removed."""
        return any(map(os.path.isdir, self.directories.values()))

    def path(self, file: str) -> str | None:
        """Where a file has to be; None if its v1 controller is not mounted."""
        controller = "" if self.version == 2 else file.partition(".")[0]
        directory = self.directories.get(controller)
        return None if directory is None else f"{directory}/{file}"

    def has(self, file: str) -> bool:
        """Whether there is such a file."""
        path = self.path(file)
        return path is not None and os.path.exists(path)

    def read(self, file: str) -> str:
        """A file's text; empty where the kernel has no such file or does not account for it."""
        path = self.path(file)
        try:
            return "" if path is None else _read(path)
        except OSError:
            return ""

    def write(self, file: str, text: str) -> None:
        """Write a file. OSError, which names it; blocks while the kernel reclaims memory."""
        path = self.path(file)
        if path is None:
            raise OSError(errno.ENOENT, "controller not mounted", file)
        write_text(path, text)


def locate(pid: int, root: str = ROOT) -> Cgroup:
    """The cgroup that a process is in now. FileNotFoundError or ProcessLookupError once it is gone.

    Controllers that are not mounted below `root` are left out.
    """
    paths = parse_proc_cgroup(read_text(f"/proc/{pid}/cgroup"))
    return find(paths, mounts(), version(root), root)


def find(
    paths: Mapping[str, str], table: Sequence[MountInfo], number: Literal[1, 2], root: str = ROOT
) -> Cgroup:
    """`locate` from what the kernel says: paths of `parse_proc_cgroup`, entries of mountinfo."""
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
    """What follows a mount's root in a cgroup's path; None for a cgroup outside of it."""
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
    """A single value: `max` is NO_LIMIT, nothing is 0."""
    text = text.strip()
    if text == "max":
        return NO_LIMIT
    return int(text) if text.isdecimal() else 0


def parse_flat(text: str) -> dict[str, int]:
    """The kernel's "flat keyed" format, `KEY VALUE` in each line."""
    values = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values[key] = parse_number(value)
    return values


def parse_nested(text: str) -> dict[str, dict[str, str]]:
    """The "nested keyed" format, `KEY SUBKEY=VALUE…` in each line; pressure files are so too."""
    entries = {}
    for line in text.splitlines():
        key, *pairs = line.split()
        entries[key] = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return entries


def parse_rdma(text: str) -> list[tuple[str, int, int]]:
    """Device, handles and objects of each line of rdma.current or rdma.max, as uint32."""
    entries = []
    for device, values in parse_nested(text).items():
        handles, objects = (min(parse_number(values.get(key, "")), _UINT32) for key in _RDMA_KEYS)
        entries.append((device, handles, objects))
    return entries


def parse_list(text: str) -> frozenset[int]:
    """A list of CPUs or memory nodes such as `0-3,8`. ValueError if it is none."""
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
    """The shortest list for `parse_list`."""
    parts: list[str] = []
    ordered = sorted(numbers)
    while ordered:
        count = next((i for i, n in enumerate(ordered) if n != ordered[0] + i), len(ordered))
        first, last = ordered[0], ordered[count - 1]
        parts.append(str(first) if first == last else f"{first}-{last}")
        del ordered[:count]
    return ",".join(parts)


def page_sizes(path: str = "/sys/kernel/mm/hugepages") -> list[str]:
    """The sizes of huge pages that the kernel has, as in hugetlb's file names: `2MB`, `1GB`."""
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
