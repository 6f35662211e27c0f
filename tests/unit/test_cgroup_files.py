"""Where a process's cgroup files are, and the formats of the files."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kuasar_agent.linux.cgroup_files import (
    NO_LIMIT,
    Cgroup,
    find,
    format_list,
    page_sizes,
    parse_flat,
    parse_list,
    parse_nested,
    parse_number,
)
from kuasar_agent.linux.mount import MountInfo, parse_mountinfo

V1_MOUNTS = """\
30 23 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:30 /pod /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
34 30 0:31 /other /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
35 30 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
36 23 0:33 / /elsewhere rw - cgroup cgroup rw,freezer
"""
V2_MOUNTS = "31 30 0:28 /{root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"


def table(text: str) -> list[MountInfo]:
    return parse_mountinfo(text)


def test_v1_has_a_directory_for_each_controller_that_is_mounted_and_visible() -> None:
    controllers = ("cpu", "cpuacct", "memory", "pids", "cpuset", "freezer", "blkio")
    paths = {**dict.fromkeys(controllers, "/pod/c1"), "": "/"}
    cgroup = find(paths, table(V1_MOUNTS), 1)
    assert cgroup.directories == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/pod/c1",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/pod/c1",
        "memory": "/sys/fs/cgroup/memory/pod/c1",
        "pids": "/sys/fs/cgroup/pids/c1",
    }
    assert cgroup.path("cpuacct.usage_percpu") == "/sys/fs/cgroup/cpu,cpuacct/pod/c1/" + (
        "cpuacct.usage_percpu"
    )
    assert cgroup.path("blkio.weight") is None
    assert (cgroup.read("blkio.weight"), cgroup.has("blkio.weight")) == ("", False)
    with pytest.raises(OSError, match="controller not mounted") as caught:
        cgroup.write("blkio.weight", "100")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "blkio.weight")


@pytest.mark.parametrize(
    ("root", "path", "directory"),
    [
        ("", "/", ""),
        ("", "/kubepods/c1", "/kubepods/c1"),
        ("kubepods", "/kubepods/c1", "/c1"),
        ("kubepods", "/kubepods", ""),
        ("kubepods", "/kubepods2/c1", None),
        ("", "/../outside", "/../outside"),
    ],
)
def test_v2_has_one_directory_below_the_root_of_the_mount(
    root: str, path: str, directory: str | None
) -> None:
    cgroup = find({"": path}, table(V2_MOUNTS.format(root=root)), 2)
    if directory is None:
        assert (cgroup.directories, cgroup.path("memory.max")) == ({}, None)
    else:
        assert cgroup.path("memory.max") == f"/sys/fs/cgroup{directory}/memory.max"


def test_files_are_read_whole_and_absent_ones_are_empty(tmp_path: Path) -> None:
    cgroup = Cgroup(2, {"": str(tmp_path)})
    text = "x" * 200_000
    (tmp_path / "io.stat").write_text(text)
    assert cgroup.read("io.stat") == text
    assert (cgroup.read("io.max"), cgroup.has("io.max")) == ("", False)
    cgroup.write("io.stat", "y")
    assert cgroup.read("io.stat").startswith("yx")
    assert cgroup.exists()
    assert not Cgroup(2, {"": str(tmp_path / "gone")}).exists()


@pytest.mark.parametrize(
    ("text", "number"),
    [("12\n", 12), ("max\n", NO_LIMIT), ("", 0), ("-1\n", 0), ("never\n", 0)],
)
def test_a_number_may_be_max(text: str, number: int) -> None:
    assert parse_number(text) == number


def test_keyed_files_become_dictionaries() -> None:
    assert parse_flat("anon 4096\nfile 0\n") == {"anon": 4096, "file": 0}
    assert parse_nested("8:0 rbytes=1 wios=2\n8:16\nsome avg10=0.50 total=7\n") == {
        "8:0": {"rbytes": "1", "wios": "2"},
        "8:16": {},
        "some": {"avg10": "0.50", "total": "7"},
    }


@pytest.mark.parametrize(
    ("text", "numbers"), [("", set()), ("0\n", {0}), ("0-3,8,10-11", {0, 1, 2, 3, 8, 10, 11})]
)
def test_lists_of_cpus_are_read_and_written(text: str, numbers: set[int]) -> None:
    assert parse_list(text) == numbers
    assert format_list(frozenset(numbers)) == text.strip()


@pytest.mark.parametrize(
    "text", ["a", "1-", "-1", "1-2-3", "0;1", "3-1", "0-1000000000000", "0," * 50_000]
)
def test_what_is_no_list_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|out of range|too long"):
        parse_list(text)


def test_page_sizes_have_the_names_of_hugetlb_files(tmp_path: Path) -> None:
    for name in ("hugepages-1048576kB", "hugepages-2048kB", "hugepages-64kB"):
        (tmp_path / name).mkdir()
    assert page_sizes(str(tmp_path)) == ["64KB", "2MB", "1GB"]
    assert page_sizes(str(tmp_path / "none")) == []
