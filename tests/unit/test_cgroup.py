"""Choosing a cgroup version, and the files that say where a process is."""

from __future__ import annotations

import pytest

from kuasar_agent.linux.cgroup import Mode, choose, parse_proc_cgroup, parse_proc_cgroups

ALL_V1 = ["cpuset", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer", "pids"]
ALL_V2 = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "devices"]


@pytest.mark.parametrize(
    ("mode", "v1", "v2", "version"),
    [
        ("auto", ALL_V1, ALL_V2, 2),
        ("auto", ALL_V1, None, 1),
        ("auto", [], None, 1),
        ("auto", [], [], 2),
        ("auto", ALL_V1, ["hugetlb"], 1),
        ("auto", ALL_V1, [c for c in ALL_V2 if c != "devices"], 1),
        ("auto", ["cpu", "pids"], [c for c in ALL_V2 if c != "devices"], 2),
        ("auto", [c for c in ALL_V1 if c != "memory"], [c for c in ALL_V2 if c != "memory"], 2),
        ("v1", ALL_V1, ALL_V2, 1),
        ("v2", ALL_V1, ["cpu"], 2),
        ("v2", ALL_V1, None, 1),
    ],
)
def test_v2_is_chosen_unless_v1_gives_containers_more(
    mode: Mode, v1: list[str], v2: list[str] | None, version: int
) -> None:
    assert choose(mode, v1, v2) == version


def test_proc_cgroups_gives_the_enabled_known_controllers_in_file_order() -> None:
    text = (
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
        "cpuset\t0\t1\t1\n"
        "memory\t0\t1\t0\n"
        "cpu\t0\t1\t1\n"
        "future\t0\t1\t1\n"
        "pids\t0\tx\t1\n"
        "pids 0 1 1\n"
        "\t0\t1\t1\n"
        "devices\t0\t1\n"
        "freezer\t0\t1\t1\textra\n"
    )
    assert parse_proc_cgroups(text) == ["cpuset", "cpu", "freezer"]


def test_proc_cgroup_maps_every_controller_to_its_path() -> None:
    text = "5:cpu,cpuacct:/pod\n4:memory:/pod/a:b\n1:name=systemd:/\n0::/init\n\n"
    assert parse_proc_cgroup(text) == {
        "cpu": "/pod",
        "cpuacct": "/pod",
        "memory": "/pod/a:b",
        "name=systemd": "/",
        "": "/init",
    }
