"""The features of the guest that a specification may ask for.

Sources: the kernel's admin-guide/mm/hugetlbpage.rst, admin-guide/cgroup-v2.rst,
admin-guide/LSM/apparmor.rst, filesystems/resctrl.rst; proc(5), seccomp_arch_add(3).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

from kuasar_agent.linux.cgroup_files import Cgroup, locate, page_sizes, parse_list
from kuasar_agent.linux.files import read_text

_CPUS_ONLINE = "/sys/devices/system/cpu/online"
_NODES_ONLINE = "/sys/devices/system/node/online"
_PROFILES = "/sys/kernel/security/apparmor/profiles"
_SELINUX = "/sys/fs/selinux/enforce"
_RESCTRL = "/sys/fs/resctrl/schemata"
_BLOCK_DEVICES = "/sys/dev/block"
_RDMA_DEVICES = "/sys/class/infiniband"
_MOST_OPEN_FILES = "/proc/sys/fs/nr_open"

_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
"""By uname's machine, those whose programs its CPUs can run."""


class Guest(NamedTuple):
    """The guest as the rules see it."""

    cgroup: Literal[1, 2] = 2
    cgroup_namespaces: bool = True
    cpus: frozenset[int] = frozenset({0})
    """The numbers of the CPUs that are online."""
    mems: frozenset[int] = frozenset({0})
    """The numbers of the memory nodes that are online."""
    huge_pages: frozenset[str] = frozenset()
    """Sizes that a cgroup can limit, as OCI writes them (`2MB`)."""
    swap: bool = False
    """Cgroups account for swap."""
    apparmor: frozenset[str] = frozenset()
    """The profiles that are loaded, and `unconfined`; empty in a kernel without AppArmor."""
    selinux: bool = False
    resctrl: bool = False
    architectures: tuple[str, ...] = _ARCHITECTURES["x86_64"]
    """Seccomp's names; empty if unknown."""
    open_files: int = 1 << 20
    """The highest RLIMIT_NOFILE."""
    exists: Callable[[str], bool] = os.path.exists
    """Tells whether a path exists. Blocks: a thread, for paths on the share."""

    def has_block_device(self, major: int, minor: int) -> bool:
        """Return whether a block device has these numbers."""
        return self.exists(f"{_BLOCK_DEVICES}/{major}:{minor}")

    def has_rdma_device(self, name: str) -> bool:
        """Return whether an RDMA device has this name."""
        return self.exists(f"{_RDMA_DEVICES}/{name}")


def read_guest() -> Guest:
    """Return the guest's present features: CPUs, profiles and limits change while it runs."""
    return _read_once()._replace(
        cpus=_online(_CPUS_ONLINE),
        mems=_online(_NODES_ONLINE),
        apparmor=_loaded_profiles(),
        open_files=_number(_MOST_OPEN_FILES, 1 << 20),
    )


@cache
def _read_once() -> Guest:
    """Return the features that stay as they are after the boot."""
    # A container's cgroup has the same files as the agent's. The root of v2 has fewer.
    cgroup = locate(os.getpid())
    return Guest(
        cgroup=cgroup.version,
        cgroup_namespaces=os.path.exists("/proc/self/ns/cgroup"),
        huge_pages=_limited_huge_pages(cgroup),
        swap=cgroup.has(
            "memory.memsw.limit_in_bytes" if cgroup.version == 1 else "memory.swap.max"
        ),
        selinux=os.path.exists(_SELINUX),
        resctrl=os.path.exists(_RESCTRL),
        architectures=_ARCHITECTURES.get(os.uname().machine, ()),
    )


def _limited_huge_pages(cgroup: Cgroup) -> frozenset[str]:
    file = "hugetlb.{}.limit_in_bytes" if cgroup.version == 1 else "hugetlb.{}.max"
    return frozenset(size for size in page_sizes() if cgroup.has(file.format(size)))


def _loaded_profiles() -> frozenset[str]:
    """Return the names from lines such as `docker-default (enforce)`."""
    try:
        lines = read_text(_PROFILES).splitlines()
    except OSError:  # a kernel without AppArmor, or no securityfs, by which runtimes find it
        return frozenset()
    return frozenset({"unconfined", *(line.rpartition(" (")[0] for line in lines)})


def _number(path: str, default: int) -> int:
    try:
        return int(read_text(path))
    except (OSError, ValueError):
        return default


def _online(path: str) -> frozenset[int]:
    try:
        return parse_list(read_text(path))
    except OSError:  # a kernel without NUMA
        return frozenset({0})
