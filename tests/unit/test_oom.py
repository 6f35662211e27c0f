"""Counting the OOM killer's victims; real kills are in tests/host and tests/vm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from google.protobuf.message import Message

from kuasar_agent.api import task_events_pb2
from kuasar_agent.linux.cgroup_files import Cgroup
from kuasar_agent.resources.oom import OomEventfd, OomWatch, OomWatcher
from tests.support.processes import fd_targets
from tests.support.waiting import eventually

ID = "c1"


class Scene:
    """A v1 cgroup of plain files: the test writes the counts and rings the bell itself.

    A v2 file that becomes urgent can only be had from the kernel.
    """

    def __init__(self, directory: Path) -> None:
        self.events: list[tuple[str, Message]] = []
        self.cgroup = Cgroup(1, {"memory": str(directory)})
        self._control = directory / "memory.oom_control"
        self._registered = directory / "cgroup.event_control"
        self._registered.touch()
        self.killed(0)
        self.watcher = OomWatcher(lambda topic, event: self.events.append((topic, event)))

    def killed(self, count: int) -> None:
        self._control.write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {count}\n")

    def remove(self) -> None:
        self._control.unlink()

    def watch(self) -> OomWatch:
        watch = self.watcher.watch(ID, self.cgroup)
        assert watch is not None
        return watch

    def ring(self) -> None:
        os.eventfd_write(self.eventfd, 1)

    @property
    def eventfd(self) -> int:
        return int(self._registered.read_text().split()[0])

    def ids(self, count: int) -> list[str]:
        """The containers of the events, once there are `count`."""
        events = eventually(lambda: list(self.events), lambda found: len(found) >= count)
        assert {topic for topic, _ in events} <= {"/tasks/oom"}
        messages = [event for _, event in events]
        assert all(isinstance(event, task_events_pb2.TaskOOM) for event in messages)
        return [event.container_id for event in messages]  # type: ignore[attr-defined]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    gevent.sleep(0)  # makes the hub, with what it keeps open
    before = len(fd_targets(os.getpid()))
    yield
    assert len(fd_targets(os.getpid())) == before


def test_every_kill_is_an_event(scene: Scene) -> None:
    watch = scene.watch()
    scene.killed(3)
    scene.ring()
    assert scene.ids(3) == [ID] * 3
    watch.close()


def test_a_kill_that_follows_its_notice_is_found(scene: Scene) -> None:
    watch = scene.watch()
    scene.ring()
    gevent.sleep(0)
    assert scene.events == []
    scene.killed(1)
    assert scene.ids(1) == [ID]
    watch.close()


def test_a_look_finds_kills_without_any_notice_and_each_once(scene: Scene) -> None:
    watch = scene.watch()
    scene.killed(1)
    assert (watch.look(), watch.look()) == (True, False)
    scene.ring()
    gevent.sleep(0.05)
    assert len(scene.events) == 1
    watch.close()


def test_kills_from_before_the_watch_are_not_told(scene: Scene) -> None:
    scene.killed(7)
    watch = scene.watch()
    assert not watch.look()
    watch.close()


def test_the_watch_ends_with_its_cgroup(scene: Scene) -> None:
    watch = scene.watch()
    fd = scene.eventfd
    scene.remove()
    scene.ring()  # as the kernel does

    def is_open() -> bool:
        return Path(f"/proc/self/fd/{fd}").exists()

    assert eventually(is_open, lambda found: not found) is False
    assert not watch.look()
    watch.close()


def test_a_closed_watch_says_nothing(scene: Scene) -> None:
    watch = scene.watch()
    watch.close()
    watch.close()
    scene.killed(1)
    assert not watch.look()
    assert scene.events == []


def test_a_massacre_leaves_room_for_the_events_of_others(scene: Scene) -> None:
    watch = scene.watch()
    scene.killed(100_000)
    assert watch.look()
    assert len(scene.events) == 64
    watch.close()


def test_without_a_memory_controller_there_is_no_watch(scene: Scene, tmp_path: Path) -> None:
    assert scene.watcher.watch(ID, Cgroup(1, {})) is None
    assert scene.watcher.watch(ID, Cgroup(2, {"": str(tmp_path)})) is None


def test_a_file_that_cannot_be_waited_for_is_not_watched(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("oom_kill 0\n")
    assert scene.watcher.watch(ID, Cgroup(2, {"": str(tmp_path)})) is None


def test_a_registration_that_fails_keeps_no_descriptor(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "cgroup.event_control").unlink()
    with pytest.raises(FileNotFoundError):
        OomEventfd(str(tmp_path / "memory.oom_control"))
