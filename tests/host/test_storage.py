"""Who holds a storage, and that it goes with the last of them: as the kernel reports it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest

from kuasar_agent import ttrpc
from kuasar_agent.api import task_pb2
from kuasar_agent.errors import (
    AlreadyExists,
    DeadlineExceeded,
    NotFound,
)
from kuasar_agent.linux.mount import mounts
from tests.support.agent import Agent
from tests.support.storages import ADDRESS, Pod, Within
from tests.support.timeouts import TIMEOUT


@pytest.mark.parametrize("order", [("c1", "c2"), ("c2", "c1")])
def test_a_storage_stays_until_its_last_container_goes(
    within: Within, order: tuple[str, str]
) -> None:
    def body(pod: Pod) -> None:
        storage = pod.storage("ephemeral")
        pod.attach("c1", storage)
        (pod.root / "storage1/file").touch()
        pod.attach("c2", storage | {"ref_container": {"c1": 1, "c2": 1}})
        pod.at()  # once, not twice
        pod.storages.release(order[0])
        assert (pod.root / "storage1/file").exists()
        pod.storages.release(order[0])
        assert (pod.root / "storage1/file").exists()
        pod.storages.release(order[1])

    within(body)


def test_a_container_that_names_a_storage_twice_holds_it_once(within: Within) -> None:
    def body(pod: Pod) -> None:
        storage = pod.storage("ephemeral")
        pod.attach("c1", storage, storage | {"mount_point": f"{storage['mount_point']}/./"})
        pod.storages.release("c1")

    within(body)


def test_containers_that_race_for_a_storage_mount_it_once(within: Within, disk: str) -> None:
    def body(pod: Pod) -> None:
        storage = pod.storage("blk", source=ADDRESS, fstype="ext4")
        names = [f"c{number}" for number in range(5)]
        racing = [gevent.spawn(pod.attach, name, storage, seconds=TIMEOUT) for name in names]
        gevent.idle()
        pod.devices.plug(disk)
        gevent.joinall(racing, raise_error=True)
        pod.at()
        ending = [gevent.spawn(pod.storages.release, name) for name in names]
        again = gevent.spawn(pod.attach, "c9", storage, seconds=TIMEOUT)
        gevent.joinall(ending, raise_error=True)
        again.get(timeout=TIMEOUT)
        assert pod.at().source == disk
        pod.storages.release("c9")

    within(body)


def test_a_container_that_waits_for_anothers_mount_gives_up_in_time(within: Within) -> None:
    def body(pod: Pod) -> None:
        storage = pod.storage("blk", source=ADDRESS, fstype="ext4")
        first = gevent.spawn(pod.storages.attach, "c1", [storage], monotonic() + 1.0)
        gevent.idle()
        with pytest.raises(DeadlineExceeded, match="another container mounts it"):
            pod.attach("c2", storage)
        with pytest.raises(DeadlineExceeded, match=f"blk {ADDRESS}"):
            first.get(timeout=TIMEOUT)

    within(body)


def test_another_storage_at_a_mount_point_in_use_is_refused(within: Within) -> None:
    def body(pod: Pod) -> None:
        pod.attach("c1", pod.storage("ephemeral"))
        with pytest.raises(AlreadyExists, match="is taken by ephemeral"):
            pod.attach("c2", pod.storage("ephemeral", options=["size=1m"]))
        pod.at()
        pod.storages.release("c1")

    within(body)


def test_nothing_is_left_when_a_later_storage_fails(within: Within, tmp_path: Path) -> None:
    def body(pod: Pod) -> None:
        good = [
            pod.storage("ephemeral", id="storage1"),
            pod.storage("local", id="storage2"),
            pod.storage("ephemeral", id="nested", mount_point=str(pod.root / "storage1/nested")),
        ]
        pod.refusal(*good, pod.storage("blk", id="storage3", source=ADDRESS))
        pod.refusal(*good, pod.storage("bind", id="storage3", source="/no/such"))

    within(body)


def test_what_another_container_holds_survives_a_failed_attach(within: Within) -> None:
    def body(pod: Pod) -> None:
        shared = pod.storage("ephemeral")
        pod.attach("c1", shared)
        with pytest.raises(NotFound):
            pod.attach("c2", shared, pod.storage("bind", id="storage2", source="/no/such"))
        pod.at()
        pod.storages.release("c1")

    within(body)


def test_a_busy_mount_is_detached_and_its_mount_point_removed(within: Within, disk: str) -> None:
    def body(pod: Pod) -> None:
        pod.devices.plug(disk)
        pod.attach("c1", pod.storage("blk", source=ADDRESS))
        with (pod.root / "storage1/file").open("w") as file:
            pod.storages.release("c1")
            pod.assert_clean()
            file.write("still there")

    within(body)


def test_a_mount_that_went_away_by_itself_is_no_error(
    within: Within, capfd: pytest.CaptureFixture[str]
) -> None:
    def body(pod: Pod) -> None:
        pod.attach("c1", pod.storage("ephemeral"))
        subprocess.run(["umount", pod.root / "storage1"], check=True)
        pod.storages.release("c1")

    within(body)
    assert "storage not released" not in capfd.readouterr().err


def test_a_mount_point_that_cannot_be_removed_is_logged(
    within: Within, capfd: pytest.CaptureFixture[str]
) -> None:
    def body(pod: Pod) -> None:
        pod.attach("c1", pod.storage("ephemeral"))
        subprocess.run(["umount", pod.root / "storage1"], check=True)
        (pod.root / "storage1/file").touch()
        pod.storages.release("c1")
        (pod.root / "storage1/file").unlink()
        (pod.root / "storage1").rmdir()

    within(body)
    log = capfd.readouterr().err
    assert "storage not released" in log
    assert os.strerror(errno.ENOTEMPTY) in log or "ENOTEMPTY" in log


def storages_of(agent: Agent, id: str, *storages: dict[str, Any]) -> None:
    """Write what a container needs; every mount point is on the share."""
    listed = [
        {"mount_point": str(agent.state / f"storage{number}"), "options": []} | storage
        for number, storage in enumerate(storages)
    ]
    (agent.state / id / f"storage-{id}").write_text(json.dumps(listed))


def mounted(agent: Agent) -> list[str]:
    return [
        entry.target
        for entry in mounts(f"/proc/{agent.pid}/mountinfo")
        if entry.target.startswith(str(agent.state))
    ]


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_container_stands_on_its_storages_and_gives_them_back(agent: Agent) -> None:
    id = agent.bundle("sh", "-c", "echo hello > /file; exec sleep 1000")
    file = agent.state / id / "config.json"
    spec = json.loads(file.read_text())
    spec["root"]["path"] = str(agent.state / "storage0")
    file.write_text(json.dumps(spec))
    storages_of(
        agent,
        id,
        {"driver": "bind", "source": str(agent.rootfs)},
        {"driver": "ephemeral", "fstype": "tmpfs"},
    )
    agent.create(id)
    agent.start(id)
    assert mounted(agent) == [str(agent.state / "storage0"), str(agent.state / "storage1")]
    agent.delete(id)
    assert mounted(agent) == []
    assert not (agent.state / "storage0").exists()
    assert (agent.rootfs / "bin").exists()


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_create_that_fails_gives_the_storages_back(agent: Agent) -> None:
    id = agent.bundle("no-such-command")
    storages_of(agent, id, {"driver": "ephemeral"}, {"driver": "local"})
    with pytest.raises(ttrpc.Unknown, match="no-such-command"):
        agent.create(id)
    assert mounted(agent) == []
    assert [path.name for path in agent.state.iterdir()] == [id]


def test_a_disk_that_never_comes_is_answered_before_the_caller_gives_up(agent: Agent) -> None:
    id = agent.bundle("true")
    storages_of(agent, id, {"driver": "blk", "source": "0000:00:1e.7"})
    request = task_pb2.CreateTaskRequest(id=id, options=agent.options())
    with pytest.raises(ttrpc.DeadlineExceeded, match=r"device blk 0000:00:1e\.7: not there after"):
        agent.tasks.create(request, timeout=2.0)
