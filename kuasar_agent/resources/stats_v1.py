"""Resource usage on cgroup v1 as `io.containerd.cgroups.v1.Metrics`.

Times are nanoseconds and sizes bytes. Kernel: admin-guide/cgroup-v1/ (memory.rst, cpuacct.rst,
blkio-controller.rst, hugetlb.rst, pids.rst, rdma.rst).
"""

from __future__ import annotations

import os

from kuasar_agent.api import cgroups_v1_pb2 as pb
from kuasar_agent.linux.cgroup_files import (
    Cgroup,
    page_sizes,
    parse_flat,
    parse_number,
    parse_rdma,
)
from kuasar_agent.linux.netdev import Counters

_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

# memory.stat has a line `swap`, which is not the message of that name.
_MEMORY = {f.name for f in pb.MemoryStat.DESCRIPTOR.fields if f.message_type is None}
_OOM = frozenset(pb.MemoryOomControl.DESCRIPTOR.fields_by_name)
# Where containerd's names are not those of memory.stat.
_RENAMED = {
    "pgpgin": "pg_pg_in",
    "pgpgout": "pg_pg_out",
    "pgfault": "pg_fault",
    "pgmajfault": "pg_maj_fault",
    "total_pgpgin": "total_pg_pg_in",
    "total_pgpgout": "total_pg_pg_out",
    "total_pgfault": "total_pg_fault",
    "total_pgmajfault": "total_pg_maj_fault",
    "hierarchical_memsw_limit": "hierarchical_swap_limit",
}

# The first file that is not empty counts: the throttling layer sees the requests of every device,
# BFQ only those of devices that it schedules.
_BLKIO = {
    "io_service_bytes_recursive": (
        "throttle.io_service_bytes_recursive",
        "throttle.io_service_bytes",
        "bfq.io_service_bytes_recursive",
    ),
    "io_serviced_recursive": (
        "throttle.io_serviced_recursive",
        "throttle.io_serviced",
        "bfq.io_serviced_recursive",
    ),
    "io_queued_recursive": ("bfq.io_queued_recursive",),
    "io_service_time_recursive": ("bfq.io_service_time_recursive",),
    "io_wait_time_recursive": ("bfq.io_wait_time_recursive",),
    "io_merged_recursive": ("bfq.io_merged_recursive",),
    "io_time_recursive": ("bfq.time_recursive",),
    "sectors_recursive": ("bfq.sectors_recursive",),
}


def collect(cgroup: Cgroup, network: list[Counters]) -> pb.Metrics:
    """Return the usage; a value that the kernel does not account for stays 0 or absent."""
    return pb.Metrics(
        pids=pb.PidsStat(
            current=parse_number(cgroup.read("pids.current")),
            limit=parse_number(cgroup.read("pids.max")),
        ),
        cpu=_cpu(cgroup),
        memory=_memory(cgroup),
        memory_oom_control=_oom_control(cgroup),
        blkio=_blkio(cgroup),
        rdma=_rdma(cgroup),
        hugetlb=[_hugetlb(cgroup, size) for size in page_sizes()],
        network=[pb.NetworkStat(**counters._asdict()) for counters in network],
    )


def _cpu(cgroup: Cgroup) -> pb.CPUStat:
    ticks = parse_flat(cgroup.read("cpuacct.stat"))
    quota = parse_flat(cgroup.read("cpu.stat"))
    return pb.CPUStat(
        usage=pb.CPUUsage(
            total=parse_number(cgroup.read("cpuacct.usage")),
            kernel=ticks.get("system", 0) * _NS_PER_TICK,
            user=ticks.get("user", 0) * _NS_PER_TICK,
            per_cpu=map(int, cgroup.read("cpuacct.usage_percpu").split()),
        ),
        throttling=pb.Throttle(
            periods=quota.get("nr_periods", 0),
            throttled_periods=quota.get("nr_throttled", 0),
            throttled_time=quota.get("throttled_time", 0),
        ),
    )


def _memory(cgroup: Cgroup) -> pb.MemoryStat:
    flat = parse_flat(cgroup.read("memory.stat"))
    named = {_RENAMED.get(key, key): value for key, value in flat.items()}
    return pb.MemoryStat(
        **{key: value for key, value in named.items() if key in _MEMORY},
        usage=_memory_entry(cgroup, "memory"),
        swap=_memory_entry(cgroup, "memory.memsw"),
        kernel=_memory_entry(cgroup, "memory.kmem"),
        kernel_tcp=_memory_entry(cgroup, "memory.kmem.tcp"),
    )


def _memory_entry(cgroup: Cgroup, prefix: str) -> pb.MemoryEntry:
    return pb.MemoryEntry(
        limit=parse_number(cgroup.read(f"{prefix}.limit_in_bytes")),
        usage=parse_number(cgroup.read(f"{prefix}.usage_in_bytes")),
        max=parse_number(cgroup.read(f"{prefix}.max_usage_in_bytes")),
        failcnt=parse_number(cgroup.read(f"{prefix}.failcnt")),
    )


def _oom_control(cgroup: Cgroup) -> pb.MemoryOomControl:
    flat = parse_flat(cgroup.read("memory.oom_control"))
    return pb.MemoryOomControl(**{key: value for key, value in flat.items() if key in _OOM})


def _blkio(cgroup: Cgroup) -> pb.BlkIOStat:
    stat = pb.BlkIOStat()
    for field, files in _BLKIO.items():
        entries = (_blkio_entries(cgroup.read(f"blkio.{file}")) for file in files)
        getattr(stat, field).extend(next(filter(None, entries), []))
    return stat


def _blkio_entries(text: str) -> list[pb.BlkIOEntry]:
    """Parse lines `8:0 Read 4096` or `8:0 4096`; the last line, a sum of all, is skipped."""
    entries = []
    for line in text.splitlines():
        device, *rest = line.split()
        major, colon, minor = device.partition(":")
        if not colon or not rest:
            continue
        entries.append(
            pb.BlkIOEntry(
                op=rest[0] if len(rest) > 1 else "",
                device=_device_name(device),
                major=int(major),
                minor=int(minor),
                value=int(rest[-1]),
            )
        )
    return entries


def _device_name(numbers: str) -> str:
    """Return the node of a block device given as `major:minor`; empty once it is unplugged."""
    try:
        name = os.path.basename(os.readlink(f"/sys/dev/block/{numbers}"))
    except OSError:
        return ""
    return f"/dev/{name.replace('!', '/')}"


def _hugetlb(cgroup: Cgroup, size: str) -> pb.HugetlbStat:
    prefix = f"hugetlb.{size}"
    return pb.HugetlbStat(
        pagesize=size,
        usage=parse_number(cgroup.read(f"{prefix}.usage_in_bytes")),
        max=parse_number(cgroup.read(f"{prefix}.max_usage_in_bytes")),
        failcnt=parse_number(cgroup.read(f"{prefix}.failcnt")),
    )


def _rdma(cgroup: Cgroup) -> pb.RdmaStat | None:
    current, limit = cgroup.read("rdma.current"), cgroup.read("rdma.max")
    if not current and not limit:
        return None
    return pb.RdmaStat(current=_rdma_entries(current), limit=_rdma_entries(limit))


def _rdma_entries(text: str) -> list[pb.RdmaEntry]:
    return [
        pb.RdmaEntry(device=device, hca_handles=handles, hca_objects=objects)
        for device, handles, objects in parse_rdma(text)
    ]
