"""Bringing processors and memory online, in a tree like that of /sys."""

from __future__ import annotations

from pathlib import Path

import gevent
import pytest

from kuasar_agent.linux.uevent import Uevent
from kuasar_agent.sandbox.hotadd import HotAdd
from tests.support.timeouts import IN_PROCESS


def make(sysfs: Path, name: str, online: str | None) -> Path:
    directory = sysfs / "devices/system" / name
    directory.mkdir(parents=True)
    if online is not None:
        (directory / "online").write_text(online)
    return directory / "online"


def added(name: str) -> Uevent:
    subsystem = name.partition("/")[0]
    return Uevent("add", f"/devices/system/{name}", subsystem, {})


def test_what_is_offline_at_the_start_comes_online(tmp_path: Path) -> None:
    cpu, memory = make(tmp_path, "cpu/cpu1", "0\n"), make(tmp_path, "memory/memory40", "0\n")
    first = make(tmp_path, "cpu/cpu0", None)
    make(tmp_path, "cpu/cpufreq", "0\n")
    running = gevent.spawn(HotAdd(str(tmp_path)).run)
    with gevent.Timeout(IN_PROCESS):
        while (cpu.read_text()[0], memory.read_text()[0]) != ("1", "1"):
            gevent.sleep(0.01)
    running.kill()
    assert not first.exists()
    assert (tmp_path / "devices/system/cpu/cpufreq/online").read_text() == "0\n"


@pytest.mark.parametrize("name", ["cpu/cpu1", "memory/memory40"])
def test_what_is_added_comes_online(tmp_path: Path, name: str) -> None:
    hot_add = HotAdd(str(tmp_path))
    running = gevent.spawn(hot_add.run)
    gevent.idle()
    online = make(tmp_path, name, "0\n")
    hot_add.notice(added(name))
    with gevent.Timeout(IN_PROCESS):
        while online.read_text()[0] != "1":
            gevent.sleep(0.01)
    running.kill()


def test_what_is_online_or_gone_is_left_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    online = make(tmp_path, "cpu/cpu1", "1\n")
    hot_add = HotAdd(str(tmp_path))
    hot_add.bring_online("/devices/system/cpu/cpu1")
    hot_add.bring_online("/devices/system/cpu/cpu2")
    assert online.read_text() == "1\n"
    assert capfd.readouterr().err == ""
