"""Resource usage on cgroup v2 as `io.containerd.cgroups.v2.Metrics`.

Times are microseconds and sizes bytes, as in the kernel's files (admin-guide/cgroup-v2.rst).
"""

from __future__ import annotations

from kuasar_agent.api import cgroups_v2_pb2 as pb
from kuasar_agent.linux.cgroup_files import (
    Cgroup,
    page_sizes,
    parse_flat,
    parse_nested,
    parse_number,
    parse_rdma,
)
from kuasar_agent.linux.netdev import Counters

_CPU = frozenset(pb.CPUStat.DESCRIPTOR.fields_by_name) - {"psi"}
_MEMORY = frozenset(pb.MemoryStat.DESCRIPTOR.fields_by_name) - {"psi"}
_EVENTS = frozenset(pb.MemoryEvents.DESCRIPTOR.fields_by_name)

_MEMORY_FILES = {
    "usage": "memory.current",
    "usage_limit": "memory.max",
    "max_usage": "memory.peak",
    "swap_usage": "memory.swap.current",
    "swap_limit": "memory.swap.max",
    "swap_max_usage": "memory.swap.peak",
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
        memory_events=pb.MemoryEvents(**_known(cgroup.read("memory.events"), _EVENTS)),
        io=_io(cgroup),
        rdma=_rdma(cgroup),
        hugetlb=[_hugetlb(cgroup, size) for size in page_sizes()],
        network=[pb.NetworkStat(**counters._asdict()) for counters in network],
    )


def _cpu(cgroup: Cgroup) -> pb.CPUStat:
    values = _known(cgroup.read("cpu.stat"), _CPU)
    return pb.CPUStat(**values, psi=_pressure(cgroup, "cpu.pressure"))


def _memory(cgroup: Cgroup) -> pb.MemoryStat:
    text = cgroup.read("memory.stat")
    values = _known(text, _MEMORY)
    if "workingset_refault" not in values:  # split by kind since Linux 5.9, as is the next
        flat = parse_flat(text)
        for name in ("workingset_refault", "workingset_activate"):
            values[name] = flat.get(f"{name}_anon", 0) + flat.get(f"{name}_file", 0)
    for field, file in _MEMORY_FILES.items():
        values[field] = parse_number(cgroup.read(file))
    return pb.MemoryStat(**values, psi=_pressure(cgroup, "memory.pressure"))


def _io(cgroup: Cgroup) -> pb.IOStat:
    stat = pb.IOStat(psi=_pressure(cgroup, "io.pressure"))
    for device, values in parse_nested(cgroup.read("io.stat")).items():
        major, _, minor = device.partition(":")
        if not values or not (major.isdecimal() and minor.isdecimal()):
            continue  # several devices without counters share a line
        stat.usage.add(
            major=int(major),
            minor=int(minor),
            **{key: int(values.get(key, 0)) for key in ("rbytes", "wbytes", "rios", "wios")},
        )
    return stat


def _hugetlb(cgroup: Cgroup, size: str) -> pb.HugeTlbStat:
    return pb.HugeTlbStat(
        pagesize=size,
        current=parse_number(cgroup.read(f"hugetlb.{size}.current")),
        max=parse_number(cgroup.read(f"hugetlb.{size}.max")),
        failcnt=parse_flat(cgroup.read(f"hugetlb.{size}.events")).get("max", 0),
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


def _pressure(cgroup: Cgroup, file: str) -> pb.PSIStats | None:
    """Parse a pressure file; None where the kernel was booted without pressure accounting."""
    if not (text := cgroup.read(file)):
        return None
    lines = {
        kind: pb.PSIData(
            avg10=float(values["avg10"]),
            avg60=float(values["avg60"]),
            avg300=float(values["avg300"]),
            total=int(values["total"]),
        )
        for kind, values in parse_nested(text).items()
    }
    return pb.PSIStats(some=lines.get("some"), full=lines.get("full"))


def _known(text: str, fields: frozenset[str]) -> dict[str, int]:
    return {key: value for key, value in parse_flat(text).items() if key in fields}
