"""What the kernel's own log says about the phases of its start, also when it was told `quiet`."""

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
    """Milliseconds of the kernel's clock, and its words."""

    at_ms: float
    text: str


def marks(path: str = "/dev/kmsg") -> list[Mark]:
    """The messages that bound a phase, in order; none where the log cannot be read.

    A record is `priority,sequence,microseconds,flags;text`
    (Documentation/ABI/testing/dev-kmsg). May block: call it off the hub.
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
        pass  # the end of what there is, or no log of this kind
    finally:
        os.close(fd)
    return found
