"""Disks and network cards that are added to a running microVM, and removed from it."""

from __future__ import annotations

from pathlib import Path

from kuasar_host.config import Disk, Nic
from kuasar_host.qmp import Qmp

_GONE_WITHIN = 30.0


class HotPlug:
    """Devices in the empty slots of a microVM, `rp1` to `rpN` of `Config.root_ports`.

    It holds QEMU's monitor, which serves one client at a time; `close()` or a `with` block ends it.
    Its calls raise QmpError when QEMU refuses them, and TimeoutError. They block the greenlet.
    """

    def __init__(self, monitor: Path) -> None:
        """Connect to QEMU's monitor.

        Raises:
            OSError: no QEMU listens.
            QmpError: QEMU refuses the connection.
        """
        self._qmp = Qmp(monitor)

    def __enter__(self) -> HotPlug:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the monitor; the devices stay."""
        self._qmp.close()

    def add_disk(self, disk: Disk, slot: str) -> None:
        """Add a disk; the guest finds it by itself."""
        node = f"disk-{disk.id}"
        file = {"driver": "file", "filename": str(disk.path.absolute())}
        self._qmp.execute(
            "blockdev-add", node_name=node, driver="raw", file=file, read_only=disk.readonly
        )
        try:
            self._add_device("virtio-blk-pci", disk.id, slot, drive=node)
        except BaseException:
            self._qmp.execute("blockdev-del", node_name=node)
            raise

    def remove_disk(self, disk: Disk) -> None:
        """Remove a disk; returns when the guest has released it."""
        self._remove_device(disk.id)
        self._qmp.execute("blockdev-del", node_name=f"disk-{disk.id}")

    def add_nic(self, nic: Nic, slot: str) -> None:
        """Add a network card; SetupSandbox or UpdateInterfaces gives it its addresses."""
        name = f"net-{nic.id}"
        if nic.tap is None:
            self._qmp.execute("netdev_add", type="hubport", id=name, hubid=0)
        else:
            scripts = {"script": "no", "downscript": "no"}
            self._qmp.execute("netdev_add", type="tap", id=name, ifname=nic.tap, **scripts)
        try:
            self._add_device("virtio-net-pci", nic.id, slot, netdev=name, mac=nic.mac)
        except BaseException:
            self._qmp.execute("netdev_del", id=name)
            raise

    def remove_nic(self, nic: Nic) -> None:
        """Remove a network card; returns when the guest has released it."""
        self._remove_device(nic.id)
        self._qmp.execute("netdev_del", id=f"net-{nic.id}")

    def _add_device(self, driver: str, id: str, slot: str, **properties: str) -> None:
        self._qmp.execute("device_add", driver=driver, id=id, bus=slot, **properties)

    def _remove_device(self, id: str) -> None:
        self._qmp.execute("device_del", id=id)
        while self._qmp.wait_event("DEVICE_DELETED", _GONE_WITHIN)["data"].get("device") != id:
            pass
