"""Storages as the kernel reports them, each test in a mount namespace of its own."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest

from kuasar_agent.api import task_pb2
from kuasar_agent.linux.mount import MountInfo, mounts
from kuasar_agent.linux.uevent import Uevent
from kuasar_agent.sandbox.devices import Devices
from kuasar_agent.sandbox.storage import Storages
from kuasar_agent.ttrpc.status import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    StatusError,
)
from tests.host.agent import Agent
from tests.host.isolation import isolated

HANGS_AFTER = 30.0
ADDRESS = "0000:00:06.0"
DISK = f"/devices/pci0000:00/{ADDRESS}/virtio3/block"


class Fed(Devices):
    """Devices that only the test plugs."""

    def _catch_up(self) -> None:
        """There is no kernel to ask."""

    def plug(self, node: str, place: str = DISK) -> None:
        name = node.removeprefix("/dev/")
        self.apply(Uevent("add", f"{place}/{name}", "block", {"DEVNAME": name}))

    def unplug(self, node: str, place: str = DISK) -> None:
        self.apply(Uevent("remove", f"{place}/{node.removeprefix('/dev/')}", "block", {}))


class Pod:
    """Storages below a directory, and what of them is mounted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "storage"
        self.root.mkdir()
        self.devices = Fed(str(directory / "sys"))
        self.storages = Storages(self.devices, [str(self.root)])
        self.before = mounts()

    def storage(self, driver: str, **fields: Any) -> dict[str, Any]:
        fields.setdefault("id", "storage1")
        fields.setdefault("mount_point", str(self.root / fields["id"]))
        fields = {"source": "", "fstype": "", "options": [], "driver_options": []} | fields
        return fields | {"driver": driver, "ref_container": {}, "device_id": None}

    def attach(self, container: str, *storages: dict[str, Any], seconds: float = 0.1) -> None:
        self.storages.attach(container, storages, monotonic() + seconds)

    def refusal(self, *storages: dict[str, Any]) -> StatusError:
        """The error of an attach; nothing of it may be left."""
        with pytest.raises(StatusError) as refusal:
            self.attach("refused", *storages)
        self.assert_clean()
        return refusal.value

    def at(self, id: str = "storage1") -> MountInfo:
        (entry,) = [m for m in mounts() if m.target == str(self.root / id)]
        return entry

    def assert_clean(self) -> None:
        assert self.storages.mount_points() == []
        assert mounts() == self.before
        assert list(self.root.iterdir()) == []
        assert not self.devices._waiters


@pytest.fixture
def within(tmp_path: Path) -> Callable[[Callable[[Pod], None]], None]:
    """Runs a body with a pod in a mount namespace of its own; nothing may be left at the end."""

    def run(body: Callable[[Pod], None]) -> None:
        def child() -> None:
            gevent.reinit()
            pod = Pod(tmp_path)
            body(pod)
            pod.assert_clean()

        isolated(child)

    return run


Within = Callable[[Callable[[Pod], None]], None]


def make_image(path: Path, tree: Path | None = None) -> Path:
    """An ext4 file system in a file, with the content of `tree`."""
    with path.open("wb") as file:
        file.truncate(8 << 20)
    content = [] if tree is None else ["-d", str(tree)]
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", *content, path], check=True)
    return path


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Makes block devices of files."""
    nodes = []

    def attach(image: Path) -> str:
        command = ["losetup", "--find", "--show", str(image)]
        node = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        nodes.append(node)
        return node

    yield attach
    for node in nodes:
        subprocess.run(["losetup", "--detach", node], check=True)


@pytest.fixture
def disk(tmp_path: Path, loop: Callable[[Path], str]) -> str:
    """A block device with ext4 on it."""
    return loop(make_image(tmp_path / "ext4.img"))


def test_ephemeral_is_a_tmpfs_with_the_options_given(within: Within) -> None:
    def body(pod: Pod) -> None:
        pod.attach("c1", pod.storage("ephemeral", source="tmpfs", options=["size=64k", "nodev"]))
        entry = pod.at()
        assert (entry.fstype, entry.source) == ("tmpfs", "tmpfs")
        assert "nodev" in entry.options
        assert "size=64k" in entry.super_options
        pod.storages.release("c1")

    within(body)


def test_ephemeral_takes_no_other_file_system(within: Within) -> None:
    def body(pod: Pod) -> None:
        error = pod.refusal(pod.storage("ephemeral", fstype="ext4"))
        assert isinstance(error, InvalidArgument)
        assert "'ext4'" in error.message

    within(body)


def test_a_directory_is_bound(within: Within) -> None:
    def body(pod: Pod) -> None:
        source = pod.directory / "source"
        source.mkdir()
        (source / "file").write_text("hello")
        pod.attach("c1", pod.storage("bind", source=str(source), options=["ro", "rbind"]))
        assert (pod.root / "storage1/file").read_text() == "hello"
        assert "ro" in pod.at().options
        pod.storages.release("c1")
        assert (source / "file").exists()

    within(body)


def test_a_file_is_bound_on_a_file(within: Within) -> None:
    def body(pod: Pod) -> None:
        source = pod.directory / "source"
        source.write_text("hello")
        pod.attach("c1", pod.storage("bind", source=str(source)))
        assert (pod.root / "storage1").read_text() == "hello"
        pod.storages.release("c1")
        assert source.read_text() == "hello"

    within(body)


def test_a_bind_of_nothing_is_not_found(within: Within) -> None:
    def body(pod: Pod) -> None:
        assert isinstance(pod.refusal(pod.storage("bind", source="/no/such/path")), NotFound)

    within(body)


@pytest.mark.parametrize("source", ["", "relative", "/a/../b"])
def test_the_source_of_a_bind_is_an_absolute_path(within: Within, source: str) -> None:
    def body(pod: Pod) -> None:
        assert isinstance(pod.refusal(pod.storage("bind", source=source)), InvalidArgument)

    within(body)


def test_a_mount_point_of_another_kind_is_refused(within: Within) -> None:
    def body(pod: Pod) -> None:
        (pod.root / "storage1").write_text("in the way")
        with pytest.raises(FailedPrecondition, match="storage1"):
            pod.attach("c1", pod.storage("ephemeral"))
        (pod.root / "storage1").unlink()

    within(body)


def test_local_is_a_directory_that_goes_with_its_content(within: Within) -> None:
    def body(pod: Pod) -> None:
        pod.attach("c1", pod.storage("local", options=["mode=0750", "uid=7", "gid=8", "rw"]))
        about = (pod.root / "storage1").stat()
        assert (stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid) == (0o750, 7, 8)
        (pod.root / "storage1/a/b").mkdir(parents=True)
        (pod.root / "storage1/link").symlink_to(pod.directory)
        pod.storages.release("c1")
        assert pod.directory.exists()

    within(body)


def test_a_local_directory_that_was_there_stays(within: Within) -> None:
    def body(pod: Pod) -> None:
        (pod.root / "storage1").mkdir(mode=0o700)
        (pod.root / "storage1/file").touch()
        pod.attach("c1", pod.storage("local"))
        pod.storages.release("c1")
        assert (pod.root / "storage1/file").exists()
        assert stat.S_IMODE((pod.root / "storage1").stat().st_mode) == 0o700
        (pod.root / "storage1/file").unlink()
        (pod.root / "storage1").rmdir()

    within(body)


@pytest.mark.parametrize("word", ["mode=rwx", "mode=17777", "uid=-1", "gid=", "uid=4294967295"])
def test_a_bad_number_of_a_local_storage_is_named(within: Within, word: str) -> None:
    def body(pod: Pod) -> None:
        error = pod.refusal(pod.storage("local", options=[word]))
        assert isinstance(error, InvalidArgument)
        assert repr(word) in error.message

    within(body)


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
        racing = [gevent.spawn(pod.attach, name, storage, seconds=HANGS_AFTER) for name in names]
        gevent.idle()
        pod.devices.plug(disk)
        gevent.joinall(racing, raise_error=True)
        pod.at()
        ending = [gevent.spawn(pod.storages.release, name) for name in names]
        again = gevent.spawn(pod.attach, "c9", storage, seconds=HANGS_AFTER)
        gevent.joinall(ending, raise_error=True)
        again.get(timeout=HANGS_AFTER)
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
            first.get(timeout=HANGS_AFTER)

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


def test_a_disk_is_mounted_by_its_address(within: Within, disk: str) -> None:
    def body(pod: Pod) -> None:
        pod.devices.plug(disk)
        pod.attach("c1", pod.storage("blk", source=ADDRESS, fstype="ext4", options=["ro"]))
        entry = pod.at()
        assert (entry.fstype, entry.source, entry.super_options[0]) == ("ext4", disk, "ro")
        pod.storages.release("c1")

    within(body)


def test_an_empty_fstype_is_found_out(within: Within, disk: str) -> None:
    def body(pod: Pod) -> None:
        pod.devices.plug(disk)
        pod.attach("c1", pod.storage("blk", source=ADDRESS, fstype=""))
        assert pod.at().fstype == "ext4"
        pod.storages.release("c1")

    within(body)


def test_a_raw_disk_is_bound_as_a_file(within: Within, disk: str) -> None:
    def body(pod: Pod) -> None:
        pod.devices.plug(disk)
        pod.attach("c1", pod.storage("blk", source=ADDRESS, fstype="bind"))
        assert (pod.root / "storage1").stat().st_rdev == Path(disk).stat().st_rdev
        pod.storages.release("c1")

    within(body)


@pytest.mark.parametrize(
    ("driver", "source", "place"),
    [
        ("mmioblk", "virtio-mmio.3", "/devices/virtio-mmio-cmdline/virtio-mmio.3/virtio1/block"),
        ("scsi", "1:7", "/devices/pci0/0000:00:03.0/virtio1/host2/target2:0:1/2:0:1:7/block"),
        ("nvdimm", ADDRESS, f"/devices/p/{ADDRESS}/virtio5/ndbus0/region0/namespace0.0/block"),
        ("blk", "0000:02:05.0", "/devices/p/0000:00:02.0/0000:01:05.0/virtio3/block"),
        ("blk", "0000:00:05.0", "/devices/p/0000:00:05.0/0000:05:00.0/virtio3/block"),
    ],
)
def test_each_driver_finds_its_disk(
    within: Within, disk: str, driver: str, source: str, place: str
) -> None:
    def body(pod: Pod) -> None:
        bridge = pod.directory / "sys/bus/pci/devices/0000:00:02.0"
        bridge.mkdir(parents=True)
        (bridge / "class").write_text("0x060400\n")
        pod.devices.plug("/dev/loop-decoy", place.replace("0", "9").replace("3", "8"))
        pod.devices.plug(disk, place)
        pod.attach("c1", pod.storage(driver, source=source, fstype="ext4"))
        assert pod.at().source == disk
        pod.storages.release("c1")

    within(body)


def test_a_pmem_disk_or_its_partition_is_found_by_name(within: Within, disk: str) -> None:
    def body(pod: Pod) -> None:
        pod.devices.plug(disk, "/devices/ndbus0/region0/namespace0.0/block")
        pod.attach("c1", pod.storage("nvdimm", source=disk, fstype="ext4"))
        assert pod.at().source == disk
        pod.storages.release("c1")

    within(body)


def test_a_scsi_address_is_scanned_on_virtio_controllers_alone(within: Within, disk: str) -> None:
    def body(pod: Pod) -> None:
        sysfs, files = pod.devices.sysfs, []
        for number, bus in enumerate(("virtio1", "ata1")):
            host = Path(sysfs, "devices", bus, f"host{number}")
            host.mkdir(parents=True)
            (host / "scan").touch()
            files.append(host / "scan")
            links = Path(sysfs, "class/scsi_host")
            links.mkdir(parents=True, exist_ok=True)
            (links / host.name).symlink_to(host)
        pod.refusal(pod.storage("scsi", source="1:7"))
        assert [file.read_text() for file in files] == ["0 1 7", ""]

    within(body)


def test_a_slot_used_again_gives_the_new_disk(
    within: Within, disk: str, loop: Callable[[Path], str], tmp_path: Path
) -> None:
    second = loop(make_image(tmp_path / "second.img"))

    def body(pod: Pod) -> None:
        for number, node in enumerate((disk, second, disk)):
            pod.devices.plug(node)
            pod.attach("c1", pod.storage("blk", id=f"storage{number}", source=ADDRESS))
            assert pod.at(f"storage{number}").source == node
            pod.storages.release("c1")
            pod.devices.unplug(node)
            pod.assert_clean()

    within(body)


def test_a_disk_that_is_plugged_late_is_waited_for(within: Within, disk: str) -> None:
    def body(pod: Pod) -> None:
        storage = pod.storage("blk", source=ADDRESS)
        waiting = gevent.spawn(pod.attach, "c1", storage, seconds=HANGS_AFTER)
        gevent.idle()
        pod.devices.plug(disk)
        waiting.get(timeout=HANGS_AFTER)
        pod.storages.release("c1")

    within(body)


def test_a_disk_that_never_comes_is_named(within: Within) -> None:
    def body(pod: Pod) -> None:
        error = pod.refusal(pod.storage("blk", source=ADDRESS))
        assert isinstance(error, DeadlineExceeded)
        assert error.message.startswith(f"timeout waiting for device blk {ADDRESS}")

    within(body)


def test_a_device_that_is_gone_by_the_time_of_the_mount_is_not_found(within: Within) -> None:
    def body(pod: Pod) -> None:
        pod.devices.plug("/dev/no-such-disk")
        error = pod.refusal(pod.storage("blk", source=ADDRESS, fstype="ext4"))
        assert isinstance(error, NotFound)
        error = pod.refusal(pod.storage("blk", source=ADDRESS))
        assert isinstance(error, FailedPrecondition)

    within(body)


@pytest.mark.parametrize("driver", ["virtio-fs", "9p"])
def test_a_share_whose_device_never_comes_is_refused(within: Within, driver: str) -> None:
    # A kernel without the file system says so at once.
    known = {"virtio-fs": "virtiofs", "9p": "9p"}[driver] in Path("/proc/filesystems").read_text()

    def body(pod: Pod) -> None:
        error = pod.refusal(pod.storage(driver, source="no-such-tag"))
        assert isinstance(error, DeadlineExceeded if known else InvalidArgument), error
        assert "no-such-tag" in error.message

    within(body)


def test_a_wrong_fstype_is_refused(within: Within, disk: str) -> None:
    def body(pod: Pod) -> None:
        pod.devices.plug(disk)
        error = pod.refusal(pod.storage("blk", source=ADDRESS, fstype="squashfs"))
        assert isinstance(error, InvalidArgument)
        assert "as squashfs" in error.message
        error = pod.refusal(pod.storage("blk", source=ADDRESS, fstype="no-such-fs"))
        assert isinstance(error, InvalidArgument)
        assert "does not know" in error.message

    within(body)


def test_a_damaged_file_system_is_refused(
    within: Within, loop: Callable[[Path], str], tmp_path: Path
) -> None:
    image = make_image(tmp_path / "damaged.img")
    with image.open("r+b") as file:
        file.seek(1024 + 0x60)
        file.write(b"\xff" * 256)  # features, UUID and sizes; the magic stays
    damaged = loop(image)
    (tmp_path / "zero.img").write_bytes(bytes(1 << 20))
    empty = loop(tmp_path / "zero.img")

    def body(pod: Pod) -> None:
        pod.devices.plug(damaged)
        error = pod.refusal(pod.storage("blk", source=ADDRESS, fstype="ext4"))
        assert isinstance(error, InvalidArgument | FailedPrecondition)
        pod.devices.unplug(damaged)
        pod.devices.plug(empty)
        error = pod.refusal(pod.storage("blk", source=ADDRESS, fstype=""))
        assert "no known file system" in error.message

    within(body)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"driver": "floppy"}, "unknown driver 'floppy'"),
        ({"driver": None}, "unknown driver ''"),
        ({"driver": 5}, "driver is not a string"),
        ({"driver": "blk", "source": "vda"}, "PCI address 'vda'"),
        ({"driver": "scsi", "source": "0000:00:06.0"}, "SCSI address '0000:00:06.0'"),
        ({"driver": "virtio-fs"}, "source is empty"),
        ({"options": "ro"}, "options is not an array of strings"),
        ({"options": [5]}, "options is not an array of strings"),
        ({"options": ["a" * 5000]}, "mount option is too long"),
        ({"mount_point": ""}, "mount_point '' is not an absolute path"),
        ({"mount_point": "storage1"}, "is not an absolute path"),
        ({"mount_point": "/etc"}, "is not below"),
        ({"mount_point": "{root}"}, "is not below"),
        ({"mount_point": "{root}/../storage/x"}, "is not an absolute path without '..'"),
        ({"mount_point": "{root}-2/x"}, "is not below"),
        ({"mount_point": "{root}/a\0b"}, "mount_point is not a string"),
        ({"fstype": {}}, "fstype is not a string"),
    ],
)
def test_bad_input_is_refused_before_anything_is_mounted(
    within: Within, fields: dict[str, Any], fault: str
) -> None:
    def body(pod: Pod) -> None:
        bad = pod.storage("ephemeral") | fields
        if isinstance(bad["mount_point"], str):
            bad["mount_point"] = bad["mount_point"].replace("{root}", str(pod.root))
        error = pod.refusal(pod.storage("ephemeral", id="good"), bad)
        assert isinstance(error, InvalidArgument)
        assert fault in error.message

    within(body)


def test_a_link_that_leads_out_is_refused(within: Within) -> None:
    def body(pod: Pod) -> None:
        (pod.root / "link").symlink_to("/")
        with pytest.raises(InvalidArgument, match="leads to"):
            pod.attach("c1", pod.storage("ephemeral", mount_point=str(pod.root / "link/mnt/x")))
        (pod.root / "link").unlink()

    within(body)


def test_every_key_but_the_needed_ones_may_be_missing_or_null(within: Within) -> None:
    def body(pod: Pod) -> None:
        nulls = dict.fromkeys(("id", "source", "fstype", "options", "driver_options", "type"))
        for extra in ({}, nulls):
            storage = {"driver": "ephemeral", "mount_point": str(pod.root / "x"), **extra}
            pod.attach("c1", storage)
            pod.storages.release("c1")

    within(body)


def test_a_mount_that_went_away_by_itself_is_no_error(
    within: Within, capfd: pytest.CaptureFixture[str]
) -> None:
    def body(pod: Pod) -> None:
        pod.attach("c1", pod.storage("ephemeral"))
        subprocess.run(["umount", pod.root / "storage1"], check=True)
        pod.storages.release("c1")

    within(body)


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
    assert "storage not given back" in log
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
    with pytest.raises(StatusError, match="no-such-command"):
        agent.create(id)
    assert mounted(agent) == []
    assert [path.name for path in agent.state.iterdir()] == [id]


def test_a_disk_that_never_comes_is_answered_before_the_caller_gives_up(agent: Agent) -> None:
    id = agent.bundle("true")
    storages_of(agent, id, {"driver": "blk", "source": "0000:00:1e.7"})
    request = task_pb2.CreateTaskRequest(id=id, options=agent.options())
    with pytest.raises(DeadlineExceeded, match=r"device blk 0000:00:1e\.7: not there after"):
        agent.tasks.create(request, timeout=2.0)
