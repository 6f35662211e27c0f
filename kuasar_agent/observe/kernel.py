"""Messages of the kernel's log that mark the phases of its start, logged with `quiet`, too."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_RECORD = 8192
_MARKS = re.compile(
    r"Linux version|Trying to unpack rootfs|Unpacking initramfs|Freeing initrd memory"
    r"|Freeing unused kernel image \(initmem\)|Run \S+ as init process"
)


class Mark(NamedTuple):
    """A message of the kernel; `at_ms` are milliseconds of its clock."""

    at_ms: float
    text: str


def marks(path: str = "/dev/kmsg") -> list[Mark]:
    """Return the messages that begin or end a phase, in order; none where the log is unreadable.

    A record is `priority,sequence,microseconds,flags;text` (Documentation/ABI/testing/dev-kmsg).
    Blocks: a thread.
    """
    found = []
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        while record := os.read(fd, _RECORD):
            head, _, text = record.decode(errors="replace").partition(";")
            line = text.partition("\n")[0]
            if _MARKS.search(line):
                found.append(Mark(int(head.split(",")[2]) / 1000, line))
    except (OSError, ValueError, IndexError):
        pass  # EAGAIN at the end of the log, or a file of another format
    finally:
        os.close(fd)
    return found
