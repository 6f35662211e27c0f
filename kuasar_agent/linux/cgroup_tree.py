"""The processes of a container's cgroup, and its removal where the runtime does not do it.

Kernel: admin-guide/cgroup-v2.rst, admin-guide/cgroup-v1/cgroups.rst (cgroup.procs).
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from kuasar_agent.linux.cgroup import ROOT, version
from kuasar_agent.linux.files import read_text

_EMPTY_WITHIN = 5.0
_PAUSE = 0.01


def directories(path: str, root: str = ROOT) -> list[str]:
    """Return the existing directories of a spec's cgroupsPath: on v1 one per hierarchy.

    A path that leads out of the tree has none.
    """
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        return []
    places = ("/".join([top, *parts]) for top in _hierarchies(root))
    return [place for place in places if os.path.isdir(place)]


def processes(directory: str) -> list[int]:
    """Return the pids in a cgroup and in those below it; none if it was removed."""
    pids: set[int] = set()
    for place, _, _ in os.walk(directory):
        pids.update(_members(place))
    return sorted(pids)


def remove(directory: str) -> bool:
    """Kill the processes of a cgroup and remove it; return False if it could not be removed.

    The cgroups below it belong to other owners and are kept.

    Blocks: a thread, at most `_EMPTY_WITHIN` seconds.
    """
    deadline = time.monotonic() + _EMPTY_WITHIN
    while True:
        for pid in _members(directory):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(OSError):
            os.rmdir(directory)
        if not os.path.exists(directory):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE)


def _hierarchies(root: str) -> list[str]:
    if version(root) == 2:
        return [root]
    try:
        tops = [f"{root}/{name}" for name in os.listdir(root)]
    except FileNotFoundError:
        return []
    return [top for top in tops if os.path.ismount(top)]


def _members(directory: str) -> list[int]:
    try:
        return [int(pid) for pid in read_text(f"{directory}/cgroup.procs").split()]
    except OSError:
        # Removed meanwhile, or a threaded cgroup, whose processes belong to its parent.
        return []
