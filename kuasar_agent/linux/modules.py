"""Loading the kernel modules that the image lists.

A list names one absolute path a line, in load order, so that no dependency is resolved at run
time. It lies with the modules of its kernel: another kernel, such as one with everything built in,
finds no list.
"""

from __future__ import annotations

import errno
import os

from kuasar_agent.linux import syscalls
from kuasar_agent.linux.files import read_text
from kuasar_agent.log import get_logger

log = get_logger(__name__)

_DIRECTORY = f"/lib/modules/{os.uname().release}"

LOAD_LIST = f"{_DIRECTORY}/load.list"
"""What boot needs before the agent can serve."""

SHARE_LIST = f"{_DIRECTORY}/{{}}.list"
"""What one kind of share needs, `9p` or `virtiofs`; an image may have all in `LOAD_LIST`."""

LATE_LIST = f"{_DIRECTORY}/late.list"
"""What only containers need; loaded once the agent serves."""


def load_list(path: str = LOAD_LIST) -> list[OSError]:
    """Load every module of the list; a failure is logged, returned, and the next one tried."""
    try:
        lines = read_text(path).split("\n")
    except FileNotFoundError:
        log.debug("no module list", path=path)
        return []
    failures = []
    for line in lines:
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        try:
            _load(name)
        except OSError as error:
            log.warning("kernel module not loaded", module=name, error=error)
            failures.append(error)
            if error.errno == errno.ENOSYS:
                break  # a kernel without CONFIG_MODULES will not take the others either
    return failures


def _load(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.finit_module(fd, path)
    except FileExistsError:
        pass  # loaded or built in
    finally:
        os.close(fd)
