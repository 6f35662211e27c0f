"""Mounting cgroups in scratch directories, inside a cgroup namespace of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kuasar_agent.linux import cgroup
from kuasar_agent.linux.mount import mounts
from tests.support.isolation import is_mounted, isolated


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "cgroup"
    path.mkdir()
    return path


def test_v2_holds_the_agent_in_a_leaf_and_enables_every_controller(
    enter_own_cgroup: Callable[[], None], root: Path
) -> None:
    def body() -> tuple[int, str, set[str], set[str]]:
        enter_own_cgroup()
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
        )

    version, path, offered, enabled = isolated(body)
    assert (version, path, enabled) == (2, "/init", offered)


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


def test_v1_that_cannot_be_mounted_is_no_error(root: Path) -> None:
    assert not cgroup._mount_v1(["cpu"], str(root / "absent"))


def test_a_version_is_always_mounted(enter_own_cgroup: Callable[[], None], root: Path) -> None:
    def body() -> tuple[int, int]:
        enter_own_cgroup()
        return cgroup.set_up("auto", str(root)), cgroup.version(str(root))

    chosen, found = isolated(body)
    assert chosen == found
