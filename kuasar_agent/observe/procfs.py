"""State of this process in /proc (proc(5)): descriptors, zombies, memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress

from kuasar_agent.linux.files import read_text


def open_fds() -> dict[int, str]:
    """Return the target of each open descriptor, without that of the listing itself."""
    found = {}
    with os.scandir("/proc/self/fd") as entries:
        numbers = [int(entry.name) for entry in entries]
    for number in numbers:
        # The descriptor of the directory is closed by now, and threads may close others.
        with suppress(OSError):
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def zombies() -> Iterator[tuple[int, str]]:
    """Yield pid and name of the agent's children that ended and were not reaped."""
    me = os.getpid()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            head, _, tail = read_text(f"/proc/{pid}/stat").rpartition(")")
            state, parent = tail.split()[:2]
            if state == "Z" and int(parent) == me:
                yield int(pid), head.partition("(")[2]


def memory() -> dict[str, int]:
    """Return VmRSS, RssAnon, RssFile, RssShmem, VmSize and VmHWM of /proc/self/status, in bytes."""
    pattern = re.compile(r"(Vm(?:RSS|Size|HWM)|Rss(?:Anon|File|Shmem)):\s+(\d+) kB")
    found = pattern.findall(read_text("/proc/self/status"))
    return {name: int(number) * 1024 for name, number in found}
