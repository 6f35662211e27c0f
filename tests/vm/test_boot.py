"""Every way of booting ends in an agent that serves and runs a container."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from image.cpio import archive
from image.tree import Node, Tree
from kuasar_agent.api import task_pb2
from kuasar_agent.ttrpc import NotFound
from kuasar_host.microvm import MicroVM
from tests.support.guest import IMAGE, Guest, config
from tests.support.guest_lifecycle import check_lifecycle
from tests.support.timeouts import GUEST


@pytest.mark.parametrize("sharefs", ["virtiofs", "9p"])
@pytest.mark.parametrize("cgroup", ["v1", "v2"])
def test_boots_from_each_share_with_each_cgroup_version(
    tmp_path: Path, sharefs: str, cgroup: str
) -> None:
    options = config(tmp_path, sharefs=sharefs, append=f"task.cgroup={cgroup}")
    with MicroVM.boot(options) as vm:
        assert vm.console.serving(GUEST)["cgroup"] == cgroup
        guest = Guest(vm)
        result = guest.run("sh", "-c", "echo out; echo err >&2; exit 7")
        assert result == (7, b"out\n", b"err\n")
        if (sharefs, cgroup) == ("9p", "v1"):  # the shared guest of other tests has v2
            check_lifecycle(guest)


def test_without_the_share_the_agent_serves_and_says_what_is_missing(tmp_path: Path) -> None:
    # The device is there, but not for the file system that the last word asks for.
    with MicroVM.boot(config(tmp_path, append="task.sharefs_type=9p")) as vm:
        guest = Guest(vm)
        with pytest.raises(NotFound, match=r"config\.json"):
            guest.task.create(task_pb2.CreateTaskRequest(id="c1"))
        guest.check()
        assert "step=share" in vm.console.tail()


def test_boots_with_a_read_only_root(tmp_path: Path) -> None:
    script = b"#!/bin/sh -e\nmount -t proc proc /proc\nmount -o remount,ro /\nexec /sbin/init\n"
    tree = Tree({"init-ro": Node(stat.S_IFREG | 0o755, script)})
    extra = tmp_path / "extra.cpio"
    extra.write_bytes(archive(tree))
    options = config(
        tmp_path / "vm", initrd=[extra, IMAGE / "kuasar.initrd"], append="rdinit=/init-ro"
    )
    with MicroVM.boot(options) as vm:
        result = Guest(vm).run("sh", "-c", "grep ' / ' /proc/1/mounts", guest_pids=True)
        assert b" ro" in result.stdout, result
