"""Kernel parameters of a pod: which namespace they belong to, and writing them.

/proc/sys shows each process the values of its own namespaces. Sources: the kernel's
ipc/ipc_sysctl.c, ipc/mq_sysctl.c and kernel/utsname_sysctl.c; sysctl(8) for the names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from kuasar_agent.errors import InvalidArgument, Unknown
from kuasar_agent.linux.files import write_text

PROC_SYS = "/proc/sys"

_NAMESPACES = {
    "ipc": (
        *("kernel/shm*", "kernel/msg*", "kernel/sem", "kernel/sem_next_id", "kernel/auto_msgmni"),
        "fs/mqueue/*",
    ),
    "uts": ("kernel/hostname", "kernel/domainname"),
    "network": ("net/*",),
}
"""By OCI's names of the namespaces."""


class Sysctls(NamedTuple):
    """Values by the names that the host gave."""

    root: Mapping[str, str]
    pod: Mapping[str, str]
    """Those of ipc and uts namespaces."""


def split(values: Mapping[str, str]) -> Sysctls:
    """Sort by namespace. Raises InvalidArgument for a name that is none."""
    pod = {key: value for key, value in values.items() if namespace(key) in ("ipc", "uts")}
    return Sysctls({key: value for key, value in values.items() if key not in pod}, pod)


def namespace(key: str) -> str:
    """Return OCI's name of the kind of namespace that a parameter belongs to, or "" for none.

    Raises:
        InvalidArgument: the name cannot be one.
    """
    path = "/".join(_parts(key))
    for name, patterns in _NAMESPACES.items():
        if any(fnmatchcase(path, pattern) for pattern in patterns):
            return name
    return ""


def write(values: Mapping[str, str], top: str = PROC_SYS) -> None:
    """Write values, in order, from inside this thread's namespaces.

    Raises InvalidArgument or Unknown with the name, the value and the reason.
    """
    for key, value in values.items():
        try:
            write_text(find(key, top), value)
        except OSError as error:
            text = f"failed to set sysctl {key} to {value} error: {error.strerror}"
            raise Unknown(text) from None


def find(key: str, top: str = PROC_SYS) -> str:
    """The file of a parameter, its name written `a.b.c` or `a/b/c`.

    A dot may also be part of a name, as in `net.ipv4.conf.eth0.100.forwarding`; what there is
    decides. Raises InvalidArgument for a name that is none.
    """
    parts = _parts(key)
    return next(_existing(top, parts), f"{top}/{'/'.join(parts)}")


def _parts(key: str) -> list[str]:
    """The name's components; whichever of dot and slash comes first separates them."""
    separator = next((char for char in key if char in "./"), ".")
    parts = key.split(separator)
    if separator == ".":
        # A slash stands for a dot then: net.ipv4.conf.eth0/100.forwarding
        parts = [part.replace("/", ".") for part in parts]
    if any(part in ("", ".", "..") for part in parts) or "\0" in key:
        raise InvalidArgument(f"invalid sysctl name {key!r}")
    return parts


def _existing(directory: str, parts: Sequence[str]) -> Iterator[str]:
    for count in range(1, len(parts) + 1):
        path = f"{directory}/{'.'.join(parts[:count])}"
        if count == len(parts):
            if os.path.isfile(path):
                yield path
        elif os.path.isdir(path):
            yield from _existing(path, parts[count:])
