"""The cgroups of a container on a real hierarchy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from kuasar_agent.linux import cgroup_tree

NAME = f"kuasar-test-tree-{os.getpid()}"


def test_processes_are_found_and_ended_with_their_cgroup() -> None:
    first, *_ = cgroup_tree.directories("/")
    assert cgroup_tree.directories(NAME) == []
    place = Path(first) / NAME
    (place / "below").mkdir(parents=True)
    assert cgroup_tree.directories(f"/{NAME}/") == [str(place)]
    sleepers = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
    try:
        for sleeper, directory in zip(sleepers, (place, place / "below"), strict=True):
            (directory / "cgroup.procs").write_text(str(sleeper.pid))
        assert cgroup_tree.processes(str(place)) == sorted(s.pid for s in sleepers)
        sleepers[1].kill()
        sleepers[1].wait()
        (place / "below").rmdir()
        assert cgroup_tree.remove(str(place))
        assert sleepers[0].wait() == -9
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
    assert cgroup_tree.processes(str(place)) == []
    assert cgroup_tree.remove(str(place))
    assert cgroup_tree.directories(NAME) == []


def test_a_path_that_leads_out_of_the_tree_is_none() -> None:
    assert cgroup_tree.directories("/../..") == []
    assert cgroup_tree.directories("a/../../b") == []
