"""The system calls that Python's `os` lacks, through libc.

Every function raises OSError with errno, its text and the target as `filename`. The GIL is released
during a call, so that a call in a thread does not stop the hub.
"""

from __future__ import annotations

import ctypes
import errno
import os

CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MNT_DETACH = 2

_PR_SET_CHILD_SUBREAPER = 36

# Calls without a wrapper in libc; the numbers are those of the kernel's unistd headers.
_NUMBERS = {
    "x86_64": {"finit_module": 313, "bpf": 321},
    "aarch64": {"finit_module": 273, "bpf": 280},
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_libc.syscall.restype = ctypes.c_long


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str = "") -> None:
    """Call mount(2) with flags; `kuasar_agent.linux.mount.mount` takes option words."""
    where = _bytes(target)
    what, kind = _optional(source), _optional(fstype)
    _check(_libc.mount(what, where, kind, flags, _optional(data or None)), target)


def umount(target: str, flags: int = 0) -> None:
    """Call umount2(2)."""
    _check(_libc.umount2(_bytes(target), flags), target)


def finit_module(fd: int, name: str, params: str = "") -> None:
    """Load the kernel module open at `fd`; only the error uses `name`."""
    _check(_syscall("finit_module", fd, ctypes.c_char_p(_bytes(params)), 0), name)


def unshare(flags: int) -> None:
    """Move this process into new namespaces (CLONE_NEW…)."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, kind: int = 0) -> None:
    """Join the namespace open at `fd`; with `kind` (CLONE_NEW…) the kernel checks its type."""
    _check(_libc.setns(fd, kind), f"setns {kind:#x}")


def set_child_subreaper() -> None:
    """Make orphaned descendants children of this process, as those of PID 1 are."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


class _BpfQuery(ctypes.Structure):
    """The `query` member of `union bpf_attr` (linux/bpf.h)."""

    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64),
        ("prog_cnt", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


def bpf_count_programs(fd: int, attach_type: int) -> int:
    """Return the number of eBPF programs attached to the cgroup open at `fd` (BPF_PROG_QUERY).

    A kernel without CONFIG_CGROUP_BPF answers EINVAL, one without bpf(2) ENOSYS.
    """
    query = _BpfQuery(target_fd=fd, attach_type=attach_type)
    command = 16
    result = _syscall("bpf", command, ctypes.byref(query), ctypes.sizeof(query))
    _check(result, "BPF_PROG_QUERY")
    return int(query.prog_cnt)


def _syscall(name: str, *args: object) -> int:
    number = _NUMBERS.get(os.uname().machine, {}).get(name)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name)
    return int(_libc.syscall(ctypes.c_long(number), *args))


def _check(result: int, target: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _bytes(text: str) -> bytes:
    data = os.fsencode(text)
    if b"\0" in data:  # libc would use the part before it without an error
        raise OSError(errno.EINVAL, "embedded NUL byte", text)
    return data


def _optional(text: str | None) -> bytes | None:
    return None if text is None else _bytes(text)
