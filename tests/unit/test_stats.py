"""containerd's metrics from directories that look like cgroups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from kuasar_agent.api import cgroups_v1_pb2, cgroups_v2_pb2
from kuasar_agent.linux.cgroup_files import NO_LIMIT, Cgroup
from kuasar_agent.linux.netdev import Counters
from kuasar_agent.resources import stats, stats_v1, stats_v2

V2_FILES = {
    "pids.current": "3\n",
    "pids.max": "max\n",
    "cpu.stat": "usage_usec 900\nuser_usec 600\nsystem_usec 300\nnice_usec 5\n"
    "nr_periods 7\nnr_throttled 2\nthrottled_usec 40\nnr_bursts 1\nburst_usec 9\n",
    "cpu.pressure": "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
    "memory.current": "8192\n",
    "memory.max": "max\n",
    "memory.peak": "9000\n",
    "memory.swap.current": "1\n",
    "memory.swap.max": "4096\n",
    "memory.stat": "anon 4096\nfile 512\nkernel 99\ninactive_file 256\npgfault 17\n"
    "workingset_refault_anon 2\nworkingset_refault_file 3\nworkingset_activate_file 4\n",
    "memory.events": "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nnew_key 7\n",
    "io.stat": "254:0 rbytes=100 wbytes=200 rios=3 wios=4 dbytes=0 dios=0\n8:0 8:16\n",
    "rdma.current": "mlx5_0 hca_handle=2 hca_object=200\n",
    "rdma.max": "mlx5_0 hca_handle=max hca_object=2000\n",
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.max": "max\n",
    "hugetlb.2MB.events": "max 8\n",
}

V1_FILES = {
    "pids/pids.current": "3\n",
    "pids/pids.max": "max\n",
    "cpu/cpu.stat": "nr_periods 7\nnr_throttled 2\nthrottled_time 40\n",
    "cpuacct/cpuacct.usage": "900000000\n",
    "cpuacct/cpuacct.usage_percpu": "400000000 500000000 \n",
    "cpuacct/cpuacct.stat": "user 60\nsystem 30\n",
    "memory/memory.usage_in_bytes": "8192\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
    "memory/memory.max_usage_in_bytes": "9000\n",
    "memory/memory.failcnt": "4\n",
    "memory/memory.memsw.usage_in_bytes": "8193\n",
    "memory/memory.kmem.usage_in_bytes": "11\n",
    "memory/memory.kmem.tcp.usage_in_bytes": "12\n",
    "memory/memory.stat": "cache 1\nrss 2\nswap 99\npgpgin 3\npgfault 4\ntotal_pgmajfault 5\n"
    "hierarchical_memsw_limit 6\ntotal_inactive_file 256\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 1\noom_kill 5\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "254:0 Read 100\n254:0 Total 100\n"
    "Total 100\n",
    "blkio/blkio.throttle.io_serviced": "254:0 Write 4\n",
    "blkio/blkio.bfq.time_recursive": "254:0 66\n",
    "hugetlb/hugetlb.2MB.usage_in_bytes": "2097152\n",
    "hugetlb/hugetlb.2MB.failcnt": "8\n",
    "rdma/rdma.max": "mlx5_0 hca_handle=max hca_object=2000\n",
}

NETWORK = [Counters("eth0", 1, 2, 3, 4, 5, 6, 7, 8)]


@pytest.fixture(autouse=True)
def page_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine may have no huge pages."""
    for module in (stats_v1, stats_v2):
        monkeypatch.setattr(module, "page_sizes", lambda: ["2MB"])


def v2(directory: Path, files: Mapping[str, str]) -> Cgroup:
    for name, text in files.items():
        (directory / name).write_text(text)
    return Cgroup(2, {"": str(directory)})


def v1(directory: Path, files: Mapping[str, str]) -> Cgroup:
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    return Cgroup(1, {path.name: str(path) for path in directory.iterdir()})


def fields(message: Message) -> dict[str, object]:
    """Every field that is not 0, by name; 64-bit numbers are strings."""
    return MessageToDict(message, preserving_proto_field_name=True)


def test_v2(tmp_path: Path) -> None:
    metrics = stats_v2.collect(v2(tmp_path, V2_FILES), NETWORK)
    pressure = metrics.cpu.psi
    assert (pressure.some.avg10, pressure.some.total, pressure.full.total) == (1.5, 77, 5)
    metrics.cpu.ClearField("psi")
    assert fields(metrics) == {
        "pids": {"current": "3", "limit": str(NO_LIMIT)},
        "cpu": {
            "usage_usec": "900",
            "user_usec": "600",
            "system_usec": "300",
            "nr_periods": "7",
            "nr_throttled": "2",
            "throttled_usec": "40",
            "nr_bursts": "1",
            "burst_usec": "9",
        },
        "memory": {
            "anon": "4096",
            "file": "512",
            "inactive_file": "256",
            "pgfault": "17",
            "workingset_refault": "5",
            "workingset_activate": "4",
            "usage": "8192",
            "usage_limit": str(NO_LIMIT),
            "max_usage": "9000",
            "swap_usage": "1",
            "swap_limit": "4096",
        },
        "memory_events": {
            "low": "1",
            "high": "2",
            "max": "3",
            "oom": "4",
            "oom_kill": "5",
            "oom_group_kill": "6",
        },
        "io": {
            "usage": [{"major": "254", "rbytes": "100", "wbytes": "200", "rios": "3", "wios": "4"}]
        },
        "rdma": {
            "current": [{"device": "mlx5_0", "hca_handles": 2, "hca_objects": 200}],
            "limit": [{"device": "mlx5_0", "hca_handles": (1 << 32) - 1, "hca_objects": 2000}],
        },
        "hugetlb": [
            {"pagesize": "2MB", "current": "2097152", "max": str(NO_LIMIT), "failcnt": "8"}
        ],
        "network": [network()],
    }


def test_v1(tmp_path: Path) -> None:
    metrics = stats_v1.collect(v1(tmp_path, V1_FILES), NETWORK)
    for entry in metrics.blkio.io_service_bytes_recursive:
        entry.ClearField("device")  # what 254:0 is depends on the machine
    metrics.blkio.io_serviced_recursive[0].ClearField("device")
    metrics.blkio.io_time_recursive[0].ClearField("device")
    assert fields(metrics) == {
        "pids": {"current": "3", "limit": str(NO_LIMIT)},
        "cpu": {
            "usage": {
                "total": "900000000",
                "user": "600000000",
                "kernel": "300000000",
                "per_cpu": ["400000000", "500000000"],
            },
            "throttling": {"periods": "7", "throttled_periods": "2", "throttled_time": "40"},
        },
        "memory": {
            "cache": "1",
            "rss": "2",
            "pg_pg_in": "3",
            "pg_fault": "4",
            "total_pg_maj_fault": "5",
            "hierarchical_swap_limit": "6",
            "total_inactive_file": "256",
            "usage": {
                "usage": "8192",
                "limit": "9223372036854771712",
                "max": "9000",
                "failcnt": "4",
            },
            "swap": {"usage": "8193"},
            "kernel": {"usage": "11"},
            "kernel_tcp": {"usage": "12"},
        },
        "memory_oom_control": {"under_oom": "1", "oom_kill": "5"},
        "blkio": {
            "io_service_bytes_recursive": [
                {"op": "Read", "major": "254", "value": "100"},
                {"op": "Total", "major": "254", "value": "100"},
            ],
            "io_serviced_recursive": [{"op": "Write", "major": "254", "value": "4"}],
            "io_time_recursive": [{"major": "254", "value": "66"}],
        },
        "rdma": {
            "limit": [{"device": "mlx5_0", "hca_handles": (1 << 32) - 1, "hca_objects": 2000}],
        },
        "hugetlb": [{"pagesize": "2MB", "usage": "2097152", "failcnt": "8"}],
        "network": [network()],
    }


def network() -> dict[str, str]:
    names = [f"{way}_{what}" for way in ("rx", "tx") for what in ("bytes", "packets")]
    names[2:2] = ["rx_errors", "rx_dropped"]
    names += ["tx_errors", "tx_dropped"]
    return {"name": "eth0"} | {name: str(n) for n, name in enumerate(names, 1)}


def test_a_cgroup_without_files_is_all_zeros(tmp_path: Path) -> None:
    assert stats_v2.collect(v2(tmp_path, {}), []).memory.usage == 0
    assert stats_v1.collect(Cgroup(1, {}), []).cpu.usage.total == 0


def test_the_type_has_its_bare_name(tmp_path: Path) -> None:
    message = stats.collect(v2(tmp_path, V2_FILES))
    assert message.type_url == "io.containerd.cgroups.v2.Metrics"
    assert cgroups_v2_pb2.Metrics.FromString(message.value).pids.current == 3
    message = stats.collect(Cgroup(1, {}))
    assert message.type_url == "io.containerd.cgroups.v1.Metrics"
    assert cgroups_v1_pb2.Metrics.FromString(message.value).pids.current == 0
