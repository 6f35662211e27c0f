"""Kernel parameters of a pod: the namespaces that they belong to, and writing them.

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
from kuasar_agent.log import get_logger

log = get_logger(__name__)

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
    """Values by the names that the host gave, sorted by namespace."""

    root: Mapping[str, str]
    """Parameters of the guest and of its network namespace, which the pod shares."""
    pod: Mapping[str, str]
    """Parameters of the pod's ipc and uts namespaces."""


def split(values: Mapping[str, str]) -> Sysctls:
    """Sort values by namespace.

    Raises:
        InvalidArgument: a name is not the name of a parameter.
    """
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
    """Write values, in order, in this thread's namespaces.

    Parameters of IPv6 are left out, with a line in the log, where the kernel runs without it
    (`ipv6.disable=1`): the pod that asks for them starts, as it does with IPv6 addresses.

    Raises:
        InvalidArgument: a name is not the name of a parameter.
        Unknown: the kernel refuses; the message has name, value and reason.
    """
    has_ipv6 = os.path.isdir(f"{top}/net/ipv6")
    for key, value in values.items():
        if not has_ipv6 and _parts(key)[:2] == ["net", "ipv6"]:
            log.warning("IPv6 is off, sysctl left out", name=key, value=value)
            continue
        try:
            write_text(find(key, top), value)
        except OSError as error:
            # contract: the words of Kuasar's vmm-task
            text = f"failed to set sysctl {key} to {value} error: {error.strerror}"
            raise Unknown(text) from None


def find(key: str, top: str = PROC_SYS) -> str:
    """Return the file of a parameter, whose name is written `a.b.c` or `a/b/c`.

    A dot may also be part of a component, as in `net.ipv4.conf.eth0.100.forwarding`: the existing
    directories decide.

    Raises:
        InvalidArgument: the text is not the name of a parameter.
    """
    parts = _parts(key)
    return next(_existing(top, parts), f"{top}/{'/'.join(parts)}")


def _parts(key: str) -> list[str]:
    """Return the name's components; the first dot or slash in it is the separator."""
    separator = next((char for char in key if char in "./"), ".")
    parts = key.split(separator)
    if separator == ".":
        # sysctl(8): a slash then stands for a dot, as in net.ipv4.conf.eth0/100.forwarding.
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
