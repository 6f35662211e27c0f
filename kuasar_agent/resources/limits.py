"""Limits of a running container: the plan of writes to cgroup files, and its execution.

A request is in terms of cgroup v1. On v2 it is converted as the OCI runtimes do, so that a limit
means the same in config.json and in an Update:
https://github.com/containers/crun/blob/main/crun.1.md ("cgroup v2").
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Literal, NamedTuple

from kuasar_agent.errors import (
    AgentError,
    FailedPrecondition,
    InvalidArgument,
    Unknown,
)
from kuasar_agent.linux.cgroup_files import (
    NO_LIMIT,
    Cgroup,
    format_list,
    parse_number,
)
from kuasar_agent.log import get_logger
from kuasar_agent.resources.limits_spec import (
    SWAP_BELOW_LIMIT,
    UNLIMITED,
    BlockIO,
    Cpu,
    Memory,
    Resources,
)

log = get_logger(__name__)

_WEIGHT_FILES = {1: ("blkio.bfq.weight", "blkio.weight"), 2: ("io.bfq.weight", "io.weight")}
_THROTTLE_FILES = {
    "rbps": "blkio.throttle.read_bps_device",
    "wbps": "blkio.throttle.write_bps_device",
    "riops": "blkio.throttle.read_iops_device",
    "wiops": "blkio.throttle.write_iops_device",
}


class Write(NamedTuple):
    """One write to a file of the cgroup."""

    file: str
    value: str


class Current(NamedTuple):
    """The state of the guest and the cgroup on which a plan depends."""

    memory_limit: int = NO_LIMIT
    """Bytes; a number of 63 bits or more means no limit."""
    swap_limit: int | None = NO_LIMIT
    """Bytes; v1: memory plus swap, v2: swap. None where the kernel does not account for swap."""
    quota: str = "max"
    """v2 only: microseconds of CPU time in each period, or `max`."""
    period: int = 100_000
    """Microseconds."""
    weight_file: str = ""
    """The file for weights of block IO; empty where no IO scheduler honours one."""


def update(cgroup: Cgroup, resources: Resources) -> None:
    """Change the limits; limits written before a failure stay.

    Blocks: a thread, while the kernel reclaims memory.

    Raises:
        InvalidArgument: see `plan`; nothing is written then. Or the kernel refuses a value.
        FailedPrecondition: the kernel cannot go below the present usage.
        Unknown: any other failed write. Messages of the kernel's refusals name the file.
    """
    for file, value in plan(resources, read_current(cgroup), cgroup.version):
        try:
            cgroup.write(file, value)
        except OSError as error:
            raise _failure(file, value, error) from None


def plan(resources: Resources, current: Current, version: Literal[1, 2]) -> list[Write]:
    """Return the writes, in an order in which the kernel accepts each.

    Raises:
        InvalidArgument: the request contradicts itself, the present limits or the cgroup version.
    """
    if version == 1:
        if resources.unified:
            raise InvalidArgument("unified: the guest runs on cgroup v1")
        writes = [*_memory_v1(resources.memory, current), *_cpu_v1(resources.cpu, current)]
    else:
        writes = [*_memory_v2(resources.memory, current), *_cpu_v2(resources.cpu, current)]
    for file, numbers in (("cpuset.cpus", resources.cpu.cpus), ("cpuset.mems", resources.cpu.mems)):
        if numbers:
            writes.append(Write(file, format_list(numbers)))
    if resources.pids is not None:
        writes.append(Write("pids.max", _or_max(resources.pids)))
    hugetlb = "limit_in_bytes" if version == 1 else "max"
    writes += [
        Write(f"hugetlb.{size}.{hugetlb}", str(limit))
        for size, limit in resources.hugepages.items()
    ]
    writes += _block_io(resources.block_io, current, version)
    for device, values in resources.rdma.items():
        pairs = [f"{key}={_or_max(value)}" for key, value in values.items()]
        writes.append(Write("rdma.max", " ".join([device, *pairs])))
    # Last, as in the runtimes: a file named in `unified` wins over a converted value.
    writes += [Write(file, value) for file, value in resources.unified.items()]
    return writes


def read_current(cgroup: Cgroup) -> Current:
    """Read the state for `plan`; a missing file counts as no limit."""
    weight = next(filter(cgroup.has, _WEIGHT_FILES[cgroup.version]), "")
    if cgroup.version == 1:
        swap = cgroup.read("memory.memsw.limit_in_bytes")
        return Current(
            memory_limit=parse_number(cgroup.read("memory.limit_in_bytes")) or NO_LIMIT,
            swap_limit=parse_number(swap) if swap else None,
            period=parse_number(cgroup.read("cpu.cfs_period_us")) or 100_000,
            weight_file=weight,
        )
    quota, _, period = cgroup.read("cpu.max").strip().partition(" ")
    swap = cgroup.read("memory.swap.max")
    return Current(
        memory_limit=parse_number(cgroup.read("memory.max")) or NO_LIMIT,
        swap_limit=parse_number(swap) if swap else None,
        quota=quota or "max",
        period=parse_number(period) or 100_000,
        weight_file=weight,
    )


def _memory_v1(memory: Memory, current: Current) -> Iterator[Write]:
    """Order the writes so that memory.limit_in_bytes never exceeds memory.memsw.limit_in_bytes."""
    limit, swap = memory.limit, memory.swap
    if current.swap_limit is None:
        if swap is not None:
            log.warning("swap limit ignored: the kernel does not account for swap", limit=swap)
        swap = None
    grows = (
        limit is not None
        and current.swap_limit is not None
        and (limit == UNLIMITED or limit > current.swap_limit)
    )
    if grows and swap is None:
        swap = limit
    writes = []
    if limit is not None:
        writes.append(Write("memory.limit_in_bytes", str(limit)))
    if swap is not None:
        writes.insert(0 if grows else 1, Write("memory.memsw.limit_in_bytes", str(swap)))
    yield from writes
    if memory.reservation is not None:
        yield Write("memory.soft_limit_in_bytes", str(memory.reservation))
    if memory.kernel_tcp is not None:
        yield Write("memory.kmem.tcp.limit_in_bytes", str(memory.kernel_tcp))
    if memory.swappiness is not None:
        yield Write("memory.swappiness", str(memory.swappiness))
    if memory.disable_oom_killer is not None:
        yield Write("memory.oom_control", str(int(memory.disable_oom_killer)))


def _memory_v2(memory: Memory, current: Current) -> Iterator[Write]:
    swap = _swap_v2(memory, current)
    if memory.limit is not None:
        yield Write("memory.max", _or_max(memory.limit))
    if swap is not None:
        yield Write("memory.swap.max", _or_max(swap))
    if memory.reservation is not None:
        yield Write("memory.low", _or_max(memory.reservation))


def _swap_v2(memory: Memory, current: Current) -> int | None:
    """Return v2's limit of swap: memory plus swap of the request, less the memory limit."""
    if memory.swap is None:
        return None
    if current.swap_limit is None:
        log.warning("swap limit ignored: the kernel does not account for swap", limit=memory.swap)
        return None
    if memory.swap == UNLIMITED:
        return UNLIMITED
    limit = current.memory_limit if memory.limit is None else memory.limit
    if not 0 < limit <= memory.swap:
        raise InvalidArgument(SWAP_BELOW_LIMIT)
    return memory.swap - limit


def _cpu_v1(cpu: Cpu, current: Current) -> Iterator[Write]:
    if cpu.shares is not None:
        yield Write("cpu.shares", str(cpu.shares))
    writes = []
    if cpu.quota is not None:
        writes.append(Write("cpu.cfs_quota_us", str(cpu.quota)))
    if cpu.period is not None:
        # Between the two writes the share must not exceed the parent's: a longer period lowers it,
        # a shorter one raises it.
        first = cpu.period >= current.period
        writes.insert(0 if first else 1, Write("cpu.cfs_period_us", str(cpu.period)))
    yield from writes
    if cpu.burst is not None:
        yield Write("cpu.cfs_burst_us", str(cpu.burst))
    if cpu.idle is not None:
        yield Write("cpu.idle", str(cpu.idle))


def _cpu_v2(cpu: Cpu, current: Current) -> Iterator[Write]:
    # The kernel refuses a weight for an idle group.
    if cpu.idle is not None:
        yield Write("cpu.idle", str(cpu.idle))
    if cpu.shares is not None and not cpu.idle:
        yield Write("cpu.weight", str(cpu_weight(cpu.shares)))
    if cpu.quota is not None or cpu.period is not None:
        quota = current.quota if cpu.quota is None else _or_max(cpu.quota)
        yield Write("cpu.max", f"{quota} {cpu.period or current.period}")
    if cpu.burst is not None:
        yield Write("cpu.max.burst", str(cpu.burst))


def cpu_weight(shares: int) -> int:
    """Convert CPU shares of v1 (2 to 262144) to a weight of v2 (1 to 10000)."""
    shares = min(max(shares, 2), 262_144)
    return 1 + (shares - 2) * 9999 // 262_142


def _block_io(io: BlockIO, current: Current, version: Literal[1, 2]) -> Iterator[Write]:
    if io.weight is not None:
        if not current.weight_file:
            log.warning("block IO weight ignored: no scheduler honours it", weight=io.weight)
        else:
            # Both versions of BFQ take 1 to 1000; v2's own scale goes up to 10000.
            own = current.weight_file == "io.weight"
            value = 1 + (io.weight - 10) * 9999 // 990 if own else io.weight
            yield Write(current.weight_file, str(value))
    for device, key, rate in io.throttles:
        if version == 1:
            yield Write(_THROTTLE_FILES[key], f"{device} {rate}")
        else:
            yield Write("io.max", f"{device} {key}={rate or 'max'}")


def _or_max(value: int) -> str:
    return "max" if value == UNLIMITED else str(value)


def _failure(file: str, value: str, error: OSError) -> AgentError:
    kinds: dict[int | None, type[AgentError]] = {
        errno.EINVAL: InvalidArgument,
        errno.ERANGE: InvalidArgument,
        errno.EBUSY: FailedPrecondition,
    }
    kind = kinds.get(error.errno, Unknown)
    return kind(f"failed to write {value!r} to {file}: {error.strerror}")
