"""Storages in a mount namespace of a test's own, on devices that only the test plugs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from kuasar_agent.devices import Devices
from kuasar_agent.errors import AgentError
from kuasar_agent.linux.mount import MountInfo, mounts
from kuasar_agent.linux.uevent import Uevent
from kuasar_agent.storage.storages import Storages

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

    def refusal(self, *storages: dict[str, Any]) -> AgentError:
        """The error of an attach; nothing of it may be left."""
        with pytest.raises(AgentError) as refusal:
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


Within = Callable[[Callable[[Pod], None]], None]
"""Runs a body with a pod in a mount namespace of its own; nothing may be left at the end."""


def make_image(path: Path, tree: Path | None = None) -> Path:
    """An ext4 file system in a file, with the content of `tree`."""
    with path.open("wb") as file:
        file.truncate(8 << 20)
    content = [] if tree is None else ["-d", str(tree)]
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", *content, path], check=True)
    return path
