"""What the kernel says about this process, read from /proc (proc(5))."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress

from kuasar_agent.linux.files import read_text


def open_fds() -> dict[int, str]:
    """What each descriptor is; without the one that the listing itself needs."""
    found = {}
    with os.scandir("/proc/self/fd") as entries:
        numbers = [int(entry.name) for entry in entries]
    for number in numbers:
        # The directory's own is closed by now; another thread may close more.
        with suppress(OSError):
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def zombies() -> Iterator[tuple[int, str]]:
    """Pid and name of our children that ended and were not waited for."""
    me = os.getpid()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            head, _, tail = read_text(f"/proc/{pid}/stat").rpartition(")")
            state, parent = tail.split()[:2]
            if state == "Z" and int(parent) == me:
                yield int(pid), head.partition("(")[2]


def memory() -> dict[str, int]:
    """Bytes by name, of /proc/self/status: VmRSS, RssAnon, RssFile, RssShmem, VmSize, VmHWM."""
    pattern = re.compile(r"(Vm(?:RSS|Size|HWM)|Rss(?:Anon|File|Shmem)):\s+(\d+) kB")
    found = pattern.findall(read_text("/proc/self/status"))
    return {name: int(number) * 1024 for name, number in found}
