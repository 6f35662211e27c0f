"""Mounting cgroups in scratch directories, inside a cgroup namespace of the test's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from kuasar_agent.linux import cgroup, syscalls
from kuasar_agent.linux.mount import is_mounted, mount, mounts
from tests.host.isolation import isolated

T = TypeVar("T")


class Run(Protocol):
    def __call__(self, body: Callable[[], T]) -> T: ...


@pytest.fixture
def in_own_cgroup(tmp_path: Path) -> Iterator[Run]:
    """Runs a body in a v2 cgroup that it sees as the root of the hierarchy."""
    top = tmp_path / "cgroup2"
    top.mkdir()
    mine = top / f"test-{os.getpid()}"

    def run(body: Callable[[], T]) -> T:
        def child() -> T:
            mount("cgroup2", str(top), "cgroup2")
            mine.mkdir()
            (mine / "cgroup.procs").write_text("0")
            syscalls.unshare(syscalls.CLONE_NEWCGROUP)
            return body()

        return isolated(child)

    def remove() -> None:
        mount("cgroup2", str(top), "cgroup2")
        for directory in (mine / "init", mine):
            if directory.exists():
                directory.rmdir()

    yield run
    isolated(remove)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "cgroup"
    path.mkdir()
    return path


def test_v2_holds_the_agent_in_a_leaf_and_enables_every_controller(
    in_own_cgroup: Run, root: Path
) -> None:
    def body() -> tuple[int, str, set[str], set[str], str | None]:
        version = cgroup.set_up("v2", str(root))
        assert cgroup.set_up("v2", str(root)) == version  # mounted already
        (entry,) = [entry for entry in mounts() if entry.target == str(root)]
        assert entry.fstype == "cgroup2"
        assert {"nosuid", "nodev", "noexec", "relatime"} <= set(entry.options)
        return (
            version,
            cgroup.parse_proc_cgroup(Path("/proc/self/cgroup").read_text())[""],
            set((root / "cgroup.controllers").read_text().split()),
            set((root / "cgroup.subtree_control").read_text().split()),
            cgroup.directory(os.getpid(), "memory", str(root)),
        )

    version, path, offered, enabled, directory = in_own_cgroup(body)
    assert (version, path, enabled) == (2, "/init", offered)
    assert directory == f"{root}/init"


def test_v1_mounts_every_controller_that_the_kernel_gives_and_seals_the_top(root: Path) -> None:
    def body() -> tuple[int, dict[str, str]]:
        version = cgroup.set_up("v1", str(root))
        below = {e.target: e for e in mounts() if e.target.startswith(str(root))}
        top = below.pop(str(root))
        assert (top.fstype, "ro" in top.options) == ("tmpfs", True)
        assert {"nosuid", "nodev", "noexec"} <= set(top.options)
        for entry in below.values():
            assert {"nosuid", "nodev", "noexec", "relatime"} <= set(entry.options)
            assert Path(entry.target).name in entry.super_options
        assert sorted(path.name for path in root.iterdir()) == sorted(Path(t).name for t in below)
        return version, {Path(t).name: e.fstype for t, e in below.items()}

    version, controllers = isolated(body)
    if not controllers:  # a host whose controllers all belong to v2
        assert version == 2
        return
    assert version == 1
    assert set(controllers.values()) == {"cgroup"}
    assert set(controllers) <= set(cgroup.parse_proc_cgroups(Path("/proc/cgroups").read_text()))


def test_v1_without_any_controller_is_no_v1(root: Path) -> None:
    def body() -> tuple[bool, bool]:
        return cgroup._mount_v1(["nosuchcontroller"], str(root)), is_mounted(str(root))

    assert isolated(body) == (False, False)


def test_a_version_is_always_mounted(in_own_cgroup: Run, root: Path) -> None:
    def body() -> tuple[int, int]:
        return cgroup.set_up("auto", str(root)), cgroup.version(str(root))

    chosen, found = in_own_cgroup(body)
    assert chosen == found


def test_a_process_is_found_in_its_directory() -> None:
    directory = cgroup.directory(os.getpid(), "memory")
    assert directory is not None
    assert str(os.getpid()) in (Path(directory) / "cgroup.procs").read_text().split()
