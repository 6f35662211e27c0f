"""The processes of a container's cgroup, and its removal when no runtime will do it.

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
    """Where a runtime puts the cgroup `path` (a spec's cgroupsPath): on v1 one per hierarchy.

    Only those that exist; none for a path that leads out of the tree.
    """
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        return []
    places = ("/".join([top, *parts]) for top in _hierarchies(root))
    return [place for place in places if os.path.isdir(place)]


def processes(directory: str) -> list[int]:
    """The pids in a cgroup and in those below it; empty when it is gone."""
    pids: set[int] = set()
    for place, _, _ in os.walk(directory):
        pids.update(_members(place))
    return sorted(pids)


def remove(directory: str) -> bool:
    """Kill what is in a cgroup and remove it; False if something of it is left.

    What lies below it belongs to others and stays. Blocks, for some seconds at the worst.
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
        # Removed in between, or a threaded cgroup, whose processes are its parent's.
        return []
