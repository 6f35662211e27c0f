"""Parsing an Update, and the writes that it becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from kuasar_agent.errors import InvalidArgument, Unknown
from kuasar_agent.linux.cgroup_files import NO_LIMIT, Cgroup
from kuasar_agent.resources.limits import Current, cpu_weight, plan, read_current, update
from kuasar_agent.resources.limits_spec import Resources, parse

Writes = list[tuple[str, str]]

LIMIT, MEMSW = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
QUOTA, PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"
V1_NONE = 9223372036854771712
"""How v1 writes that there is no limit."""


def resources(**sections: Any) -> Resources:
    return parse(json.dumps(sections).encode())


def memory(limit: int | None = None, swap: int | None = None) -> dict[str, Any]:
    values = {"limit": limit, "swap": swap}
    return {"memory": {key: value for key, value in values.items() if value is not None}}


def at(limit: int, swap: int | None) -> Current:
    return Current(memory_limit=limit, swap_limit=swap)


@pytest.mark.parametrize(
    ("request_", "current", "writes"),
    [
        # Shrinking: memory first, else it would be above memory and swap.
        (memory(50, 50), at(100, 100), [(LIMIT, "50"), (MEMSW, "50")]),
        # Growing: memory and swap first, for the same reason.
        (memory(200, 200), at(100, 100), [(MEMSW, "200"), (LIMIT, "200")]),
        # Memory grows below what memory and swap shrink to.
        (memory(120, 150), at(100, 200), [(LIMIT, "120"), (MEMSW, "150")]),
        (memory(-1, -1), at(100, 100), [(MEMSW, "-1"), (LIMIT, "-1")]),
        (memory(100, 100), at(V1_NONE, V1_NONE), [(LIMIT, "100"), (MEMSW, "100")]),
        (memory(100, -1), at(50, 60), [(MEMSW, "-1"), (LIMIT, "100")]),
        (memory(80), at(50, 100), [(LIMIT, "80")]),
        # Alone it could not grow: what they have together grows with it.
        (memory(200), at(50, 100), [(MEMSW, "200"), (LIMIT, "200")]),
        (memory(-1), at(50, 100), [(MEMSW, "-1"), (LIMIT, "-1")]),
        (memory(swap=200), at(50, 100), [(MEMSW, "200")]),
        # No accounting for swap in the kernel.
        (memory(200, 200), at(100, None), [(LIMIT, "200")]),
        (memory(0, 0), at(100, 100), []),
        (
            {
                "memory": {
                    "reservation": 5,
                    "kernelTCP": 6,
                    "swappiness": 0,
                    "disableOOMKiller": True,
                }
            },
            at(100, 100),
            [
                ("memory.soft_limit_in_bytes", "5"),
                ("memory.kmem.tcp.limit_in_bytes", "6"),
                ("memory.swappiness", "0"),
                ("memory.oom_control", "1"),
            ],
        ),
    ],
)
def test_memory_on_v1(request_: dict[str, Any], current: Current, writes: Writes) -> None:
    assert plan(resources(**request_), current, 1) == writes


@pytest.mark.parametrize(
    ("request_", "current", "writes"),
    [
        (memory(100, 150), at(10, 0), [("memory.max", "100"), ("memory.swap.max", "50")]),
        (memory(100, 100), at(10, 0), [("memory.max", "100"), ("memory.swap.max", "0")]),
        (memory(-1, -1), at(10, 0), [("memory.max", "max"), ("memory.swap.max", "max")]),
        (memory(100), at(10, 0), [("memory.max", "100")]),
        (memory(swap=150), at(100, 0), [("memory.swap.max", "50")]),
        (memory(100, 150), at(10, None), [("memory.max", "100")]),
        ({"memory": {"reservation": 5}}, at(10, 0), [("memory.low", "5")]),
    ],
)
def test_memory_on_v2(request_: dict[str, Any], current: Current, writes: Writes) -> None:
    assert plan(resources(**request_), current, 2) == writes


def test_swap_on_v2_needs_a_memory_limit() -> None:
    for current in (at(NO_LIMIT, 0), at(200, 0)):
        with pytest.raises(InvalidArgument, match=r"memory\.swap"):
            plan(resources(**memory(swap=150)), current, 2)


@pytest.mark.parametrize(
    ("cpu", "current", "v1", "v2"),
    [
        ({"shares": 2}, Current(), [("cpu.shares", "2")], [("cpu.weight", "1")]),
        ({"shares": 1024}, Current(), [("cpu.shares", "1024")], [("cpu.weight", "39")]),
        ({"shares": 0}, Current(), [], []),
        (
            {"quota": 50_000, "period": 100_000},
            Current(period=100_000),
            [(PERIOD, "100000"), (QUOTA, "50000")],
            [("cpu.max", "50000 100000")],
        ),
        (
            {"quota": 5_000, "period": 10_000},
            Current(period=100_000),
            [(QUOTA, "5000"), (PERIOD, "10000")],
            [("cpu.max", "5000 10000")],
        ),
        (
            {"quota": -1},
            Current(quota="7000", period=9_000),
            [(QUOTA, "-1")],
            [("cpu.max", "max 9000")],
        ),
        (
            {"period": 10_000},
            Current(quota="7000", period=9_000),
            [(PERIOD, "10000")],
            [("cpu.max", "7000 10000")],
        ),
        (
            {"burst": 9, "idle": 1, "shares": 2},
            Current(),
            [("cpu.shares", "2"), ("cpu.cfs_burst_us", "9"), ("cpu.idle", "1")],
            [("cpu.idle", "1"), ("cpu.max.burst", "9")],
        ),
    ],
)
def test_cpu(cpu: dict[str, int], current: Current, v1: Writes, v2: Writes) -> None:
    assert plan(resources(cpu=cpu), current, 1) == v1
    assert plan(resources(cpu=cpu), current, 2) == v2


@pytest.mark.parametrize(
    ("shares", "weight"), [(1, 1), (2, 1), (1024, 39), (262_144, 10_000), (1 << 40, 10_000)]
)
def test_shares_become_a_weight(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


@pytest.mark.parametrize("version", [1, 2])
def test_cpuset(version: Literal[1, 2]) -> None:
    asked = resources(cpu={"cpus": "0-2,5", "mems": "1"})
    assert plan(asked, Current(), version) == [("cpuset.cpus", "0-2,5"), ("cpuset.mems", "1")]
    assert plan(resources(cpu={"cpus": "", "mems": None}), Current(), version) == []


@pytest.mark.parametrize(
    ("sections", "v1", "v2"),
    [
        ({"pids": {"limit": 5}}, [("pids.max", "5")], [("pids.max", "5")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]},
            [("hugetlb.2MB.limit_in_bytes", "0")],
            [("hugetlb.2MB.max", "0")],
        ),
        (
            {"rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 4}}},
            [("rdma.max", "mlx5_0 hca_handle=3 hca_object=4")],
            [("rdma.max", "mlx5_0 hca_handle=3 hca_object=4")],
        ),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 100}]}},
            [("blkio.throttle.read_bps_device", "8:0 100")],
            [("io.max", "8:0 rbps=100")],
        ),
        (
            {"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}]}},
            [("blkio.throttle.write_iops_device", "8:0 0")],
            [("io.max", "8:0 wiops=max")],
        ),
        ({"devices": [{"allow": False}], "network": {"classID": 1}}, [], []),
    ],
)
def test_other_limits(sections: dict[str, Any], v1: Writes, v2: Writes) -> None:
    assert plan(resources(**sections), Current(), 1) == v1
    assert plan(resources(**sections), Current(), 2) == v2


@pytest.mark.parametrize(
    ("file", "value"),
    [("io.weight", "4950"), ("io.bfq.weight", "500"), ("blkio.weight", "500"), ("", None)],
)
def test_the_weight_of_block_io_depends_on_the_file(file: str, value: str | None) -> None:
    asked = resources(blockIO={"weight": 500})
    writes = plan(asked, Current(weight_file=file), 1 if file.startswith("blkio") else 2)
    assert writes == ([] if value is None else [(file, value)])


def test_the_unified_files_come_last_and_are_v2s_only() -> None:
    asked = resources(pids={"limit": 5}, unified={"memory.high": "1000", "pids.max": "7"})
    assert plan(asked, Current(), 2) == [
        ("pids.max", "5"),
        ("memory.high", "1000"),
        ("pids.max", "7"),
    ]
    with pytest.raises(InvalidArgument, match="unified"):
        plan(asked, Current(), 1)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "Expecting value"),
        (b"[]", "not an object"),
        (b"[" * 100_000, "recursion"),
        (b"\xff", "utf-8"),
        (b'{"memory": 5}', "memory is not an object"),
        (b'{"memory": {"limit": "5"}}', "memory.limit is not an integer"),
        (b'{"memory": {"limit": true}}', "memory.limit is not an integer"),
        (b'{"memory": {"limit": 1.5}}', "memory.limit is not an integer"),
        (b'{"memory": {"limit": -2}}', "memory.limit is negative"),
        (b'{"memory": {"limit": 99999999999999999999}}', "memory.limit is out of range"),
        (b'{"memory": {"limit": 10, "swap": 5}}', "memory.swap"),
        (b'{"memory": {"disableOOMKiller": 1}}', "not true or false"),
        (b'{"cpu": {"shares": -5}}', "cpu.shares is not a natural number"),
        (b'{"cpu": {"cpus": "a-b"}}', "cpu.cpus is no list"),
        (b'{"cpu": {"cpus": 1}}', "cpu.cpus is not a string"),
        (b'{"hugepageLimits": {}}', "hugepageLimits is not an array"),
        (b'{"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}', "no size of a page"),
        (b'{"unified": {"../../memory.max": "1"}}', "no file of a controller"),
        (b'{"unified": {"cgroup.procs": "1"}}', "no file of a controller"),
        (b'{"unified": {"memory.max": 1}}', "not a string"),
    ],
)
def test_what_cannot_be_parsed_is_named(data: bytes, fault: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"(?s)failed to parse resource spec: .*{fault}"):
        parse(data)


def test_absent_and_null_members_ask_for_nothing() -> None:
    assert parse(b"{}") == Resources()
    assert parse(b'{"memory": null, "cpu": {"cpus": null}, "hugepageLimits": null}') == Resources()


def test_the_current_state_is_read_from_the_files(tmp_path: Path) -> None:
    cgroup = Cgroup(2, {"": str(tmp_path)})
    assert read_current(cgroup) == Current(swap_limit=None)
    for name, text in {
        "memory.max": "1000\n",
        "memory.swap.max": "max\n",
        "cpu.max": "max 50000\n",
        "io.weight": "default 100\n",
    }.items():
        (tmp_path / name).write_text(text)
    current = read_current(cgroup)
    assert current[:4] == (1000, NO_LIMIT, "max", 50_000)
    assert current.weight_file == "io.weight"


def test_a_write_that_fails_is_named_and_earlier_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max")
    asked = resources(**memory(100), pids={"limit": 5})
    with pytest.raises(Unknown, match=r"failed to write '5' to pids\.max: No such file"):
        update(Cgroup(2, {"": str(tmp_path)}), asked)
    assert (tmp_path / "memory.max").read_text() == "100"
