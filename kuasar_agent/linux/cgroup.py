"""Control groups: choosing and mounting v1 or v2, and finding a process's cgroups.

v2 is preferred. v1 is chosen where v2 lacks a controller that a container's limits need, or eBPF
device control, which replaces v1's `devices` controller.
Sources: the kernel's admin-guide/cgroup-v2.rst and admin-guide/cgroup-v1/cgroups.rst, cgroups(7).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal

from kuasar_agent.linux import syscalls
from kuasar_agent.linux.files import read_text, write_text
from kuasar_agent.linux.mount import mount, unmount
from kuasar_agent.log import get_logger

log = get_logger(__name__)

ROOT = "/sys/fs/cgroup"

Mode = Literal["auto", "v1", "v2"]

NEEDED = frozenset({"cpu", "cpuset", "devices", "io", "memory", "pids"})
"""The controllers that containers need, by v2's names; `devices` is any device control."""

_V1_CONTROLLERS = frozenset(
    {"cpu", "cpuacct", "blkio", "cpuset", "memory", "devices", "freezer", "net_cls"}
    | {"perf_event", "net_prio", "hugetlb", "pids", "rdma"}
)
_V1_TO_V2 = {"blkio": "io"}

_INIT = "init"
"""The agent's own cgroup on v2: a cgroup that enables controllers for its children may have no
processes, unless it is the kernel's root."""

_BPF_CGROUP_DEVICE = 6


def parse_proc_cgroups(text: str) -> list[str]:
    """Return the v1 controllers that /proc/cgroups shows as enabled, in its order."""
    names = []
    for line in text.split("\n"):
        fields = line.split("\t")
        if line.startswith("#") or len(fields) < 4 or not all(f.isdecimal() for f in fields[1:4]):
            continue
        if fields[0] in _V1_CONTROLLERS and int(fields[3]):
            names.append(fields[0])
    return names


def parse_proc_cgroup(text: str) -> dict[str, str]:
    """Return the paths of /proc/<pid>/cgroup by controller; v2's has the key "".

    A v1 hierarchy without controllers keeps its name (`name=systemd`).
    """
    paths = {}
    for line in text.split("\n"):
        _, first, rest = line.partition(":")
        controllers, second, path = rest.partition(":")
        if first and second:
            paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def choose(mode: Mode, v1: Iterable[str], v2: Iterable[str] | None) -> Literal[1, 2]:
    """Return the version to mount.

    Args:
        v1: the controllers of /proc/cgroups.
        v2: those of cgroup.controllers, with `devices` if the kernel has eBPF device control; None
            if the kernel has no v2.
    """
    if v2 is None:
        return 1
    if mode != "auto":
        return 1 if mode == "v1" else 2
    missing_v1 = NEEDED - {_V1_TO_V2.get(name, name) for name in v1}
    missing_v2 = NEEDED - set(v2)
    return 1 if len(missing_v1) < len(missing_v2) else 2


def version(root: str = ROOT) -> Literal[1, 2]:
    """Return the version that is mounted at `root`."""
    return 2 if os.path.exists(f"{root}/cgroup.controllers") else 1


def set_up(mode: Mode = "auto", root: str = ROOT) -> Literal[1, 2]:
    """Mount cgroups at `root`, prepare them for a runtime, and return their version.

    A mounted version is kept. If the preferred version cannot be mounted, the other one is.

    Raises:
        OSError: neither can be mounted.
    """
    if not os.path.ismount(root):
        _mount(mode, root)
    if version(root) == 2:
        _delegate(root)
        return 2
    return 1


def _mount(mode: Mode, root: str) -> None:
    v1 = _list_v1()
    v2 = _try_v2(root)
    if choose(mode, v1, v2) == 2:
        missing = NEEDED - set(v2 or ())
        if missing:
            log.warning("cgroup v2 lacks controllers", missing=",".join(sorted(missing)))
        return
    if v2 is not None:
        unmount(root)
    if mode != "v1":
        log.warning("cgroup v2 cannot serve, v1 is used", v2=None if v2 is None else ",".join(v2))
    if not _mount_v1(v1, root):
        log.warning("cgroup v1 cannot be mounted, v2 is used")
        _mount_v2(root)


def _list_v1() -> list[str]:
    try:
        return parse_proc_cgroups(read_text("/proc/cgroups"))
    except OSError as error:
        log.debug("no cgroup v1", error=error)
        return []


def _try_v2(root: str) -> list[str] | None:
    try:
        _mount_v2(root)
    except OSError as error:
        log.debug("no cgroup v2", error=error)
        return None
    controllers = read_text(f"{root}/cgroup.controllers").split()
    if _has_device_control(root):
        controllers.append("devices")
    return controllers


def _mount_v2(root: str) -> None:
    words = ["nosuid", "nodev", "noexec", "relatime", "nsdelegate"]
    mount("cgroup2", root, "cgroup2", words)


def _has_device_control(root: str) -> bool:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.bpf_count_programs(fd, _BPF_CGROUP_DEVICE)
    except OSError as error:
        log.debug("no eBPF device control", error=error)
        return False
    finally:
        os.close(fd)
    return True


def _mount_v1(controllers: list[str], root: str) -> bool:
    """Mount the v1 controllers that the kernel has; return False if it mounts none."""
    words = ["nosuid", "nodev", "noexec", "mode=755"]
    try:
        mount("tmpfs", root, "tmpfs", words)
    except OSError as error:
        log.warning("cgroup v1 not mounted", error=error)
        return False
    done = [name for name in controllers if _mount_controller(name, f"{root}/{name}")]
    if not done:
        unmount(root)
        return False
    try:
        mount("tmpfs", root, "tmpfs", ["remount", "ro", *words])
    except OSError as error:
        log.warning("cgroup v1 stays writable at its top", error=error)
    return True


def _mount_controller(name: str, target: str) -> bool:
    os.mkdir(target)
    try:
        mount("cgroup", target, "cgroup", ["nosuid", "nodev", "noexec", "relatime", name])
    except OSError as error:  # newer kernels list controllers that were built without v1
        log.warning("cgroup v1 controller not mounted", controller=name, error=error)
        os.rmdir(target)
        return False
    return True


def _delegate(root: str) -> None:
    """Move the agent to its cgroup and enable every controller for the containers' cgroups."""
    leaf, control = f"{root}/{_INIT}", f"{root}/cgroup.subtree_control"
    os.makedirs(leaf, exist_ok=True)
    # The other members of the root are kernel threads, which may stay there.
    _try_write(f"{leaf}/cgroup.procs", "0")
    enabled = read_text(control).split()
    for name in read_text(f"{root}/cgroup.controllers").split():
        if name not in enabled:
            _try_write(control, f"+{name}")


def _try_write(path: str, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        log.warning("cgroup file not written", text=text, error=error)
