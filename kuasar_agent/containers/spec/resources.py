"""Rules for limits: a container's at its creation and those of an Update."""

from __future__ import annotations

from collections.abc import Iterator

from kuasar_agent.containers.spec.job import Job, Json, keep, section
from kuasar_agent.linux.cgroup_files import format_list, parse_list

_RESOURCES = ("linux", "resources")
_MEMORY = ("limit", "reservation", "swap", "kernel", "kernelTCP")
_WITHOUT_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED")
_BLOCK_IO = (
    "weightDevice",
    "throttleReadBpsDevice",
    "throttleWriteBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteIOPSDevice",
)


def narrow(holder: Json, key: str, present: frozenset[int], name: str) -> Iterator[str]:
    """Limit a list of CPUs or memory nodes to those that the guest has; remove one left empty."""
    asked = holder.get(key)
    if not isinstance(asked, str) or not asked:
        return
    try:
        left = parse_list(asked) & present
        same = parse_list(asked) == left
    except ValueError:  # for the parser of an Update, or the runtime, to refuse
        return
    if same:
        return
    if left:
        holder[key] = format_list(left)
        yield f"{name} {asked} is {holder[key]}"
    else:
        del holder[key]
        yield f"{name} {asked} removed"


def narrow_cpuset(spec: Json, job: Job) -> Iterator[str]:
    """Narrow a cpuset to the guest's CPUs and memory nodes."""
    cpu = section(spec, *_RESOURCES, "cpu")
    yield from narrow(cpu, "cpus", job.guest.cpus, "linux.resources.cpu.cpus")
    yield from narrow(cpu, "mems", job.guest.mems, "linux.resources.cpu.mems")


def narrow_memory_policy(spec: Json, job: Job) -> Iterator[str]:
    """Narrow a memory policy to the guest's memory nodes; one without a node is removed."""
    policy = section(spec, "linux", "memoryPolicy")
    yield from narrow(policy, "nodes", job.guest.mems, "linux.memoryPolicy.nodes")
    if policy.get("mode") and "nodes" not in policy and policy["mode"] not in _WITHOUT_NODES:
        del section(spec, "linux")["memoryPolicy"]
        yield "linux.memoryPolicy removed"


def remove_zero_memory(spec: Json, _job: Job) -> Iterator[str]:
    """Remove limits of 0 bytes, which stand for no limit."""
    memory = section(spec, *_RESOURCES, "memory")
    for key in _MEMORY:
        if memory.get(key) == 0:
            del memory[key]
            yield f"linux.resources.memory.{key} 0 removed"


def remove_huge_pages(spec: Json, job: Job) -> Iterator[str]:
    """Remove limits for sizes of huge pages that the guest's cgroups do not have."""

    def known(limit: Json) -> bool:
        size = limit.get("pageSize")
        return not isinstance(size, str) or size in job.guest.huge_pages

    gone = keep(spec, (*_RESOURCES, "hugepageLimits"), known)
    if gone:
        sizes = ", ".join(str(limit["pageSize"]) for limit in gone)
        yield f"linux.resources.hugepageLimits without {sizes}"


def remove_swap(spec: Json, job: Job) -> Iterator[str]:
    """Remove a limit of swap where cgroups do not account for it."""
    memory = section(spec, *_RESOURCES, "memory")
    if memory.get("swap") and not job.guest.swap:
        yield f"linux.resources.memory.swap {memory.pop('swap')} removed"


def remove_block_devices(spec: Json, job: Job) -> Iterator[str]:
    """Remove limits for block devices that the guest does not have."""

    def present(limit: Json) -> bool:
        major, minor = limit.get("major"), limit.get("minor")
        if not isinstance(major, int) or not isinstance(minor, int):
            return True
        return job.guest.has_block_device(major, minor)

    for key in _BLOCK_IO:
        if gone := keep(spec, (*_RESOURCES, "blockIO", key), present):
            numbers = ", ".join(f"{each['major']}:{each['minor']}" for each in gone)
            yield f"linux.resources.blockIO.{key} without {numbers}"


def remove_rdma(spec: Json, job: Job) -> Iterator[str]:
    """Remove limits for RDMA devices that the guest does not have."""
    limits = section(spec, *_RESOURCES, "rdma")
    for device in [name for name in limits if not job.guest.has_rdma_device(name)]:
        del limits[device]
        yield f"linux.resources.rdma without {device}"


def remove_rdt(spec: Json, job: Job) -> Iterator[str]:
    """Remove a class of cache and memory bandwidth where the guest has no resctrl."""
    if "intelRdt" in section(spec, "linux") and not job.guest.resctrl:
        del section(spec, "linux")["intelRdt"]
        yield "linux.intelRdt removed"
