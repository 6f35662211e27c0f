"""File descriptors 0 to 2 of PID 1.

The kernel starts init without them when the initramfs has no /dev/console. The next opened files
would get these numbers, and children would write their output into them.
"""

from __future__ import annotations

import os
import stat
import sys

from kuasar_agent.log import console, get_logger

log = get_logger(__name__)

_OUTPUTS = ("/dev/console", "/dev/kmsg", "/dev/null")


def reserve_standard_fds() -> list[int]:
    """Open a placeholder on each of descriptors 0 to 2 that is closed, and return their numbers.

    Must run before any other file is opened. No file system may be mounted yet, so the placeholder
    is the root directory, which cannot be written to.
    """
    closed = [fd for fd in range(3) if not _is_open(fd)]
    for fd in closed:
        _install("/", os.O_PATH, fd)
    return closed


def attach_console(placeholders: list[int], dev: str = "/dev") -> None:
    """Connect stdin to /dev/null, the placeholders of the outputs to the console, and the log.

    The log gets an open file of its own, the only one in non-blocking mode: a console without a
    reader then does not stop the agent, and children do not get EAGAIN for their output.
    """
    _try_install([f"{dev}/null"], os.O_RDONLY, 0)
    outputs = [dev + path.removeprefix("/dev") for path in _OUTPUTS]
    for fd in placeholders:
        if fd != 0:
            _try_install(outputs, os.O_WRONLY | os.O_NOCTTY, fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", 1, closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", 1, closefd=False)
    attach_log()


def attach_log() -> None:
    """Open the file of descriptor 2 again for the log.

    Raises:
        OSError: it cannot be opened; the log keeps its file.
    """
    if stat.S_ISREG(os.fstat(2).st_mode):  # two offsets in one file would overwrite each other
        return
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    before = console.fd
    console.attach(os.open("/proc/self/fd/2", flags))
    if before > 2:
        os.close(before)


def _try_install(paths: list[str], flags: int, fd: int) -> None:
    for path in paths:
        try:
            _install(path, flags, fd)
        except OSError as error:
            log.warning("standard file descriptor not replaced", fd=fd, error=error)
        else:
            return


def _install(path: str, flags: int, fd: int) -> None:
    source = os.open(path, flags | os.O_CLOEXEC)
    if source == fd:
        os.set_inheritable(fd, True)
        return
    os.dup2(source, fd)
    os.close(source)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
