"""Kernel modules: those that the image lists, and device nodes that make the kernel load others.

A list names one absolute path a line, in load order, so that no dependency is resolved at run time.
It is stored with the modules of its kernel, so that a kernel with everything built in has no list.

Every other module of the image is loaded by the kernel at its first use: a file system's type, a
kind of link or a netlink family becomes an alias, which the kernel gives to /sbin/modprobe.
Source: the kernel's kernel/module/kmod.c.
"""

from __future__ import annotations

import errno
import os
import stat

from kuasar_agent.linux import syscalls
from kuasar_agent.linux.files import read_text
from kuasar_agent.log import get_logger

log = get_logger(__name__)

DIRECTORY = f"/lib/modules/{os.uname().release}"

LOAD = "load"
"""The list of the modules without which the agent cannot serve."""

LATE = "late"
"""The list of the drivers that only containers need; loaded once the agent serves."""

_KINDS = {"b": stat.S_IFBLK, "c": stat.S_IFCHR}


def load_list(name: str, directory: str = DIRECTORY) -> list[OSError]:
    """Load every module of a list: `LOAD`, `LATE`, or the type of a share, `9p` or `virtiofs`.

    Returns:
        The failures, which are logged; the modules after one that failed are tried.
    """
    path = f"{directory}/{name}.list"
    failures = []
    for module in _lines(path):
        try:
            _load(module)
        except OSError as error:
            log.warning("kernel module not loaded", module=module, error=error)
            failures.append(error)
            if error.errno == errno.ENOSYS:
                break  # a kernel without CONFIG_MODULES refuses the others too
    return failures


def make_nodes(directory: str = DIRECTORY, dev: str = "/dev") -> None:
    """Make the nodes whose first open(2) loads a driver, such as /dev/net/tun; log a failure.

    Without udev they would appear only once the driver is loaded, which needs them.
    Source: modules.devname of depmod(8), `name node type major:minor` in each line.
    """
    for line in _lines(f"{directory}/modules.devname"):
        _, name, numbers = line.split()
        kind, (major, _, minor) = numbers[0], numbers[1:].partition(":")
        path = f"{dev}/{name}"
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.mknod(path, _KINDS[kind] | 0o600, os.makedev(int(major), int(minor)))
        except FileExistsError:
            continue  # its driver is loaded
        except OSError as error:
            log.warning("device node not made", path=path, error=error)


def _lines(path: str) -> list[str]:
    try:
        lines = [line.strip() for line in read_text(path).split("\n")]
    except FileNotFoundError:
        log.debug("no such list of this kernel", path=path)
        return []
    return [line for line in lines if line and not line.startswith("#")]


def _load(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.finit_module(fd, path)
    except FileExistsError:
        pass  # loaded or built in
    finally:
        os.close(fd)
