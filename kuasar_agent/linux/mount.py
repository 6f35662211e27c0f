"""Mounting with the option words of mount(8), and reading the table of mounts.

`parse_options` knows the words that Kuasar's hosts send; every other word is data for the file
system. The steps of a mount follow containerd's mount package (core/mount/mount_linux.go).
"""

import errno
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from kuasar_agent.errors import InvalidArgument
from kuasar_agent.linux import syscalls
from kuasar_agent.linux.files import read_text
from kuasar_agent.log import get_logger

log = get_logger(__name__)

# linux/mount.h
MS_RDONLY = 1 << 0
MS_NOSUID = 1 << 1
MS_NODEV = 1 << 2
MS_NOEXEC = 1 << 3
MS_SYNCHRONOUS = 1 << 4
MS_REMOUNT = 1 << 5
MS_MANDLOCK = 1 << 6
MS_DIRSYNC = 1 << 7
MS_NOATIME = 1 << 10
MS_NODIRATIME = 1 << 11
MS_BIND = 1 << 12
MS_REC = 1 << 14
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24

# word: (flags set, flags cleared)
_FLAG_WORDS = {
    "async": (0, MS_SYNCHRONOUS),
    "atime": (0, MS_NOATIME),
    "bind": (MS_BIND, 0),
    "defaults": (0, 0),
    "dev": (0, MS_NODEV),
    "diratime": (0, MS_NODIRATIME),
    "dirsync": (MS_DIRSYNC, 0),
    "exec": (0, MS_NOEXEC),
    "mand": (MS_MANDLOCK, 0),
    "noatime": (MS_NOATIME, 0),
    "nodev": (MS_NODEV, 0),
    "nodiratime": (MS_NODIRATIME, 0),
    "noexec": (MS_NOEXEC, 0),
    "nomand": (0, MS_MANDLOCK),
    "norelatime": (0, MS_RELATIME),
    "nostrictatime": (0, MS_STRICTATIME),
    "nosuid": (MS_NOSUID, 0),
    "rbind": (MS_BIND | MS_REC, 0),
    "relatime": (MS_RELATIME, 0),
    "remount": (MS_REMOUNT, 0),
    "ro": (MS_RDONLY, 0),
    "rw": (0, MS_RDONLY),
    "strictatime": (MS_STRICTATIME, 0),
    "suid": (0, MS_NOSUID),
    "sync": (MS_SYNCHRONOUS, 0),
}

_PROPAGATION_WORDS = {
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}

DATA_LIMIT = 4095
"""Bytes of data that mount(2) accepts: it copies one page with the final NUL, and the kernel cuts a
longer string without an error."""


class MountOptions(NamedTuple):
    """The arguments of mount(2) for a list of option words."""

    flags: int = 0
    propagation: int = 0
    """At most one propagation type, with MS_REC if its word begins with `r`. The MS_REC of `rbind`
    is in `flags` and does not concern propagation."""
    data: str = ""


def parse_options(words: Iterable[str]) -> MountOptions:
    """Translate option words in order; the last propagation word wins, as mount(2) takes one.

    Raises:
        InvalidArgument: the data is longer than `DATA_LIMIT`.
    """
    flags = propagation = 0
    data: list[str] = []
    for word in words:
        if word in _FLAG_WORDS:
            added, cleared = _FLAG_WORDS[word]
            flags = (flags | added) & ~cleared
        elif word in _PROPAGATION_WORDS:
            propagation = _PROPAGATION_WORDS[word]
        elif word:
            data.append(word)
    text = ",".join(data)
    length = len(os.fsencode(text))
    if length > DATA_LIMIT:
        raise InvalidArgument(f"mount option is too long: {length} bytes, limit {DATA_LIMIT}")
    return MountOptions(flags, propagation, text)


def mount(source: str | None, target: str, fstype: str | None, words: Iterable[str] = ()) -> None:
    """Mount with option words; after an error nothing that this call mounted stays mounted.

    Raises:
        OSError: the kernel refuses; the error has errno and target.
        InvalidArgument: the data is longer than `DATA_LIMIT`.

    Blocks: a thread, for a share or a disk.
    """
    flags, propagation, data = parse_options(words)
    if fstype == "bind":
        flags |= MS_BIND
    read_only_bind = flags & (MS_BIND | MS_RDONLY) == MS_BIND | MS_RDONLY
    remount = bool(flags & MS_REMOUNT)
    mounted = False
    if not (propagation and not (flags or source or fstype or data)) and not (
        remount and read_only_bind
    ):
        syscalls.mount(source, target, fstype, flags, data)
        mounted = not remount
    try:
        if propagation:
            syscalls.mount(None, target, None, propagation)
        if read_only_bind:  # the kernel ignores MS_RDONLY when it makes a bind mount
            syscalls.mount(None, target, None, flags | MS_REMOUNT)
    except OSError:
        if mounted:
            syscalls.umount(target, syscalls.MNT_DETACH)
        raise


def unmount(target: str) -> bool:
    """Unmount the topmost mount at `target`; return False if there was none.

    A busy mount is detached: it disappears from the tree and the kernel frees it after its last
    use.
    """
    try:
        syscalls.umount(target)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return False
        if error.errno != errno.EBUSY:
            raise
        log.warning("mount is busy, detached", target=target)
        syscalls.umount(target, syscalls.MNT_DETACH)
    return True


class MountInfo(NamedTuple):
    """A line of /proc/<pid>/mountinfo (proc(5))."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    target: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    """Optional fields such as `shared:1`, `master:2`, `unbindable`; empty for a private mount."""
    fstype: str
    source: str
    super_options: tuple[str, ...]


def parse_mountinfo(text: str) -> list[MountInfo]:
    """Return the mounts in the text of mountinfo, without lines of another form."""
    found = []
    for line in text.split("\n"):
        left, separator, right = line.partition(" - ")
        head, tail = left.split(" "), right.split(" ")
        if not separator or len(head) < 6 or len(tail) < 3:
            continue
        found.append(
            MountInfo(
                int(head[0]),
                int(head[1]),
                head[2],
                _unescape(head[3]),
                _unescape(head[4]),
                tuple(head[5].split(",")),
                tuple(head[6:]),
                tail[0],
                _unescape(tail[1]),
                tuple(_unescape(tail[2]).split(",")),
            )
        )
    return found


def mounts(path: str = "/proc/self/mountinfo") -> list[MountInfo]:
    """Return the mounts of this namespace in the order of mounting.

    Raises:
        OSError: the file cannot be read.
    """
    return parse_mountinfo(read_text(path))


def _unescape(field: str) -> str:
    if "\\" not in field:
        return field
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
