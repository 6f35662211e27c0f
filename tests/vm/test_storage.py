"""Devices that QEMU plugs into a running guest, and containers that stand on them."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
import pytest

from kuasar_agent.api import task_pb2
from kuasar_agent.ttrpc import DeadlineExceeded, InvalidArgument, StatusError
from kuasar_host.bundle import make_busybox_rootfs
from kuasar_host.config import Share
from kuasar_host.microvm import MicroVM
from kuasar_host.share import VIRTIOFSD
from tests.support.guest import Guest, Result, config
from tests.support.timeouts import TIMEOUT

MIB = 1 << 20
PLACE = "/run/kuasar/storage/containers"
BRIDGE = 0x1D
"""The slot of a PCI bridge on bus 0."""
HARDWARE = [
    *("-smp", "maxcpus=2", "-m", "slots=4,maxmem=2G"),
    *("-device", f"pci-bridge,id=bridge,chassis_nr=99,addr={BRIDGE:#x}"),
    *("-device", "virtio-scsi-pci,id=scsi"),
]


class Host(Guest):
    """Plugs devices, and runs containers on them."""

    def __init__(self, vm: MicroVM) -> None:
        super().__init__(vm)
        self.qmp = vm.qmp()
        self._storages: list[dict[str, Any]] = []
        self._root = ""
        self._names = 0
        self.before = self.left()

    def run_on(self, storages: Sequence[dict[str, Any]], *command: str, root: str = "") -> Result:
        """Run a container that has the storages at /data0, /data1, … or one of them as its root."""
        with self._standing_on(storages, root):
            return self.run(*command)

    def bundle_on(self, storages: Sequence[dict[str, Any]], *command: str) -> str:
        """The id of a new bundle that has the storages."""
        with self._standing_on(storages):
            return self.bundle(command)

    @contextlib.contextmanager
    def _standing_on(self, storages: Sequence[dict[str, Any]], root: str = "") -> Iterator[None]:
        self._storages, self._root = list(storages), root
        try:
            yield
        finally:
            self._storages, self._root = [], ""

    def bundle(self, command: Sequence[str], *, guest_pids: bool = False) -> str:
        id = super().bundle(command, guest_pids=guest_pids)
        path = self.vm.shared / id
        spec = json.loads((path / "config.json").read_text())
        spec["root"]["path"] = self._root or spec["root"]["path"]
        for number, storage in enumerate(self._storages):
            if storage["mount_point"] != self._root:
                source = storage["mount_point"]
                entry = {"destination": f"/data{number}", "type": "bind", "source": source}
                spec["mounts"].append({**entry, "options": ["bind"]})
        if guest_pids:
            spec["mounts"].append(
                {
                    "destination": "/cgroups",
                    "type": "bind",
                    "source": "/sys/fs/cgroup",
                    "options": ["rbind", "ro"],
                }
            )
        (path / "config.json").write_text(json.dumps(spec))
        (path / f"storage-{id}").write_text(json.dumps(self._storages))
        return id

    def storage(self, driver: str, source: str, **fields: Any) -> dict[str, Any]:
        self._names += 1
        id = f"storage{self._names}"
        about = {"id": id, "mount_point": f"{PLACE}/{id}", "fstype": "", "options": []}
        return {**about, "driver": driver, "source": source, **fields}

    def left(self) -> tuple[list[str], ...]:
        """The guest's mounts, block devices and cgroups."""
        # Without the last column: the size of a tmpfs follows the memory.
        script = "sed 's/ [^ ]*$//' /proc/1/mountinfo; echo; ls /sys/class/block; echo; "
        script += "find /cgroups -type d"
        result = self.run("sh", "-c", script, guest_pids=True)
        assert result.status == 0, result
        own = f"/kubepods/c{self._count}"
        parts = result.stdout.decode().split("\n\n")
        return tuple([line for line in part.splitlines() if own not in line] for part in parts)

    def place(self, port: str) -> str:
        """The PCI address of a root port."""
        for device in self.qmp.execute("query-pci")[0]["devices"]:
            if device["qdev_id"] == port:
                return f"0000:00:{device['slot']:02x}.{device['function']}"
        raise AssertionError(f"no root port {port}")

    @contextlib.contextmanager
    def plugged(self, driver: str, image: Path | None = None, **properties: Any) -> Iterator[str]:
        """A device, with a disk behind it, for the time of a `with` block."""
        self._names += 1
        id = f"device{self._names}"
        if image is not None:
            properties["drive"] = f"disk-{id}"
            file = {"driver": "file", "filename": str(image)}
            self.qmp.execute("blockdev-add", node_name=f"disk-{id}", driver="raw", file=file)
        self.qmp.execute("device_add", driver=driver, id=id, **properties)
        try:
            yield id
        finally:
            self.unplug(id)
            if image is not None:
                self.qmp.execute("blockdev-del", node_name=f"disk-{id}")

    def unplug(self, id: str) -> None:
        self.qmp.execute("device_del", id=id)
        while self.qmp.wait_event("DEVICE_DELETED", TIMEOUT)["data"].get("device") != id:
            pass

    def read_on_console(self, text: str) -> None:
        """Wait until the agent said it."""
        with gevent.Timeout(TIMEOUT):
            while text not in (self.vm.directory / "console.log").read_text(errors="replace"):
                gevent.sleep(0.02)


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    directory = tmp_path_factory.mktemp("vm")
    (directory / "plan9").mkdir()
    (directory / "plan9/name").write_text("9p")
    shares = [Share("plan9", directory / "plan9")]
    options = config(directory, root_ports=3, shares=shares, arguments=HARDWARE)
    with MicroVM.boot(options) as vm:
        host = Host(vm)
        yield host
        host.qmp.close()
        print("console:", vm.console.tail(), sep="\n")


@pytest.fixture
def host(booted: Host) -> Iterator[Host]:
    """The guest; what it has mounted and plugged is the same after the test as before."""
    yield booted
    assert booted.left() == booted.before


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with the file `name` that says `ext4`."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "name").write_text("ext4")
    return make_ext4(tmp_path_factory.mktemp("disks") / "ext4.img", tree)


def make_ext4(path: Path, tree: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path], check=True)
    return path


def make_partitioned(path: Path, part: Path) -> Path:
    """A disk with an MBR and one partition, the content of `part`."""
    sectors = part.stat().st_size // 512
    entry = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little")
    entry += sectors.to_bytes(4, "little")
    head = bytes(446) + entry + bytes(48) + b"\x55\xaa"
    path.write_bytes(head.ljust(MIB, b"\0") + part.read_bytes())
    return path


def test_a_disk_is_mounted_by_its_root_port(host: Host, ext4: Path) -> None:
    storage = host.storage("blk", host.place("rp1"), fstype="ext4")
    with host.plugged("virtio-blk-pci", ext4, bus="rp1"):
        result = host.run_on([storage], "sh", "-c", "cat /data0/name; echo new > /data0/new")
        assert result == (0, b"ext4", b"")
        # What was written is on the disk, not in a mount that went away.
        assert host.run_on([storage], "cat", "/data0/new").stdout == b"new\n"


def test_a_disk_is_mounted_by_its_bridge_as_the_host_numbers_it(host: Host, ext4: Path) -> None:
    storage = host.storage("blk", f"0000:{BRIDGE:02x}:05.0")
    with host.plugged("virtio-blk-pci", ext4, bus="bridge", addr="5"):
        assert host.run_on([storage], "cat", "/data0/name").stdout == b"ext4"


def test_a_container_runs_from_a_disk(host: Host, tmp_path: Path) -> None:
    make_busybox_rootfs(tmp_path / "tree")
    (tmp_path / "tree/data0").mkdir()
    image = make_ext4(tmp_path / "root.img", tmp_path / "tree")
    storage = host.storage("blk", host.place("rp2"), fstype="ext4")
    with host.plugged("virtio-blk-pci", image, bus="rp2"):
        script = "grep ' / ' /proc/mounts"
        result = host.run_on([storage], "sh", "-c", script, root=storage["mount_point"])
        assert result.status == 0, result
        assert b"ext4" in result.stdout


def test_a_raw_disk_is_the_disk_and_not_its_partition(
    host: Host, ext4: Path, tmp_path: Path
) -> None:
    image = make_partitioned(tmp_path / "disk.img", ext4)
    place = host.place("rp1")
    with host.plugged("virtio-blk-pci", image, bus="rp1"):
        raw = host.storage("blk", place, fstype="bind", options=["ro"])
        script = "cd /sys/class/block; ls -d vd*; stat -c %t:%T /data0"
        lines = host.run_on([raw], "sh", "-c", script).stdout.decode().split()
        assert lines[:2] == ["vda", "vda1"]
        assert int(lines[2].partition(":")[2], 16) == 0  # the minor number of the whole disk
        with pytest.raises(InvalidArgument, match="damaged superblock"):
            host.run_on([host.storage("blk", place, fstype="ext4")], "true")


def test_a_slot_used_again_gives_the_new_disk(host: Host, ext4: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/name").write_text("second")
    second = make_ext4(tmp_path / "second.img", tmp_path / "tree")
    for image, name in ((ext4, b"ext4"), (second, b"second")):
        with host.plugged("virtio-blk-pci", image, bus="rp1"):
            storage = host.storage("blk", host.place("rp1"), fstype="ext4")
            assert host.run_on([storage], "cat", "/data0/name").stdout == name


def test_twenty_disks_in_a_row_are_all_told_apart(host: Host, tmp_path: Path) -> None:
    with contextlib.ExitStack() as plugged:
        storages = []
        for slot in range(1, 21):
            tree = tmp_path / f"tree{slot}"
            tree.mkdir()
            (tree / "name").write_text(f"{slot} ")
            image = make_ext4(tmp_path / f"{slot}.img", tree)
            device = host.plugged("virtio-blk-pci", image, bus="bridge", addr=f"{slot:#x}")
            plugged.enter_context(device)
            storages.append(host.storage("blk", f"0000:{BRIDGE:02x}:{slot:02x}.0", fstype="ext4"))
        script = "for i in $(seq 0 19); do cat /data$i/name; done"
        names = host.run_on(storages, "sh", "-c", script).stdout.decode().split()
        assert names == [str(slot) for slot in range(1, 21)]


def test_a_disk_that_is_plugged_late_is_waited_for(host: Host, ext4: Path) -> None:
    place = host.place("rp3")
    storage = host.storage("blk", place, fstype="ext4")
    running = gevent.spawn(host.run_on, [storage], "cat", "/data0/name")
    host.read_on_console(f'msg="waiting for device" src=devices device="blk {place}"')
    with host.plugged("virtio-blk-pci", ext4, bus="rp3"):
        assert running.get(timeout=TIMEOUT).stdout == b"ext4"


def test_a_disk_that_never_comes_is_named(host: Host) -> None:
    id = host.bundle_on([host.storage("blk", "0000:00:1e.0", fstype="ext4")], "true")
    with pytest.raises(DeadlineExceeded, match=r"device blk 0000:00:1e\.0: not there after"):
        host.task.create(task_pb2.CreateTaskRequest(id=id), timeout=2.0)


def test_scsi_disks_are_found_by_target_and_unit(host: Host, ext4: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/name").write_text("second")
    second = make_ext4(tmp_path / "second.img", tmp_path / "tree")
    one = host.plugged("scsi-hd", ext4, bus="scsi.0", scsi_id=1, lun=0)
    two = host.plugged("scsi-hd", second, bus="scsi.0", scsi_id=2, lun=3)
    with one, two:
        storages = [host.storage("scsi", "1:0"), host.storage("scsi", "2:3", fstype="ext4")]
        result = host.run_on(storages, "cat", "/data0/name", "/data1/name")
        assert result == (0, b"ext4second", b"")


def test_two_containers_share_a_disk_whichever_is_deleted_first(host: Host, ext4: Path) -> None:
    with host.plugged("virtio-blk-pci", ext4, bus="rp1"):
        storage = host.storage("blk", host.place("rp1"), fstype="ext4")
        for first, second in ((0, 1), (1, 0)):
            ids = [host.bundle_on([storage], "sleep", "1000") for _ in range(2)]
            for id in ids:
                host.task.create(task_pb2.CreateTaskRequest(id=id), timeout=TIMEOUT)
            host.task.delete(task_pb2.DeleteRequest(id=ids[first]), timeout=TIMEOUT)
            assert any(storage["mount_point"] in line for line in host.left()[0])
            host.task.delete(task_pb2.DeleteRequest(id=ids[second]), timeout=TIMEOUT)


def test_a_disk_that_vanishes_while_it_is_mounted_is_given_back(host: Host, ext4: Path) -> None:
    storage = host.storage("blk", host.place("rp1"), fstype="ext4", options=["ro"])
    id = host.bundle_on([storage], "sleep", "1000")
    with host.plugged("virtio-blk-pci", ext4, bus="rp1"):
        host.task.create(task_pb2.CreateTaskRequest(id=id), timeout=TIMEOUT)
    host.task.delete(task_pb2.DeleteRequest(id=id), timeout=TIMEOUT)


def test_a_second_share_is_mounted_by_its_tag(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "name").write_text("share")
    socket = host.vm.directory / "second.sock"
    command = [str(VIRTIOFSD), f"--socket-path={socket}", "-o", f"source={source},cache=auto"]
    with subprocess.Popen([*command, "-o", "sandbox=chroot"], stderr=subprocess.DEVNULL) as daemon:
        with gevent.Timeout(TIMEOUT):
            while not socket.exists():
                gevent.sleep(0.02)
        backend = {"addr": {"type": "unix", "data": {"path": "second.sock"}}, "server": False}
        host.qmp.execute("chardev-add", id="second", backend={"type": "socket", "data": backend})
        with host.plugged(
            "vhost-user-fs-pci", chardev="second", tag="second", bus="rp2", queue_size=1024
        ):
            storage = host.storage("virtio-fs", "second", fstype="virtiofs")
            assert host.run_on([storage], "cat", "/data0/name").stdout == b"share"
        host.qmp.execute("chardev-remove", id="second")
        daemon.terminate()


def test_a_share_over_9p_is_mounted_by_its_tag(host: Host) -> None:
    storage = host.storage("9p", "plan9", options=["nodev"])
    assert host.run_on([storage], "cat", "/data0/name").stdout == b"9p"


def test_bad_storages_are_refused(host: Host) -> None:
    for fields in ({"driver": "floppy"}, {"mount_point": f"{PLACE}/../../x"}):
        storage = host.storage("ephemeral", "tmpfs") | fields
        with pytest.raises(StatusError) as refusal:
            host.run_on([storage], "true")
        assert isinstance(refusal.value, InvalidArgument)


def test_a_processor_and_memory_come_online(host: Host) -> None:
    def states() -> list[str]:
        script = "cat /sys/devices/system/cpu/online /sys/devices/system/memory/memory*/state"
        return host.run("sh", "-c", script).stdout.decode().split()

    before = states()
    free = [cpu for cpu in host.qmp.execute("query-hotpluggable-cpus") if "qom-path" not in cpu]
    host.qmp.execute("device_add", driver=free[0]["type"], id="cpu1", **free[0]["props"])
    host.read_on_console("device=cpu1")
    memory = {"qom_type": "memory-backend-memfd", "size": 128 * MIB, "share": True}
    host.qmp.execute("object-add", id="more", **memory)
    host.qmp.execute("device_add", driver="pc-dimm", id="dimm", memdev="more")
    with gevent.Timeout(TIMEOUT):
        while len(after := states()) == len(before):
            pass
    assert after == ["0-1", *before[1:], "online"]


def test_persistent_memory_is_a_disk(booted: Host, ext4: Path) -> None:
    # QEMU cannot unplug it: this test comes last.
    memory = {"mem_path": str(ext4), "size": 16 * MIB, "share": True}
    booted.qmp.execute("object-add", qom_type="memory-backend-file", id="pmem", **memory)
    booted.qmp.execute("device_add", driver="virtio-pmem-pci", memdev="pmem", bus="rp3")
    for source in ("/dev/pmem0", booted.place("rp3")):
        storage = booted.storage("nvdimm", source, fstype="ext4", options=["ro"])
        assert booted.run_on([storage], "cat", "/data0/name").stdout == b"ext4"
    assert booted.left()[0] == booted.before[0]
