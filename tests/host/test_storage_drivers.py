"""What each storage driver mounts, as the kernel reports it."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest

from kuasar_agent.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from tests.support.storages import ADDRESS, Pod, Within, make_image
from tests.support.timeouts import TIMEOUT


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
        waiting = gevent.spawn(pod.attach, "c1", storage, seconds=TIMEOUT)
        gevent.idle()
        pod.devices.plug(disk)
        waiting.get(timeout=TIMEOUT)
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
