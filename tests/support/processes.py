"""Processes of this host, seen through /proc."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path


def children_of(pid: int) -> list[str]:
    """Return `<pid> <name> <state>` of every child of a process, zombies included."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            head, _, tail = path.read_text().rpartition(")")
            state, parent = tail.split()[:2]
            if int(parent) == pid:
                found.append(f"{head.replace('(', '')} {state}")
    return found


def fd_targets(pid: int) -> list[str]:
    """Return the target of each descriptor, without the numbers that tell sockets apart."""
    targets = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            targets.append(re.sub(r"\[\d+\]", "", str(path.readlink())))
    return sorted(targets)


def command_line(pid: int) -> str:
    """Return the words of a process, joined by spaces."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ").strip()
