"""What a booted, idle guest takes of its memory, by how it was booted and what it was given."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from kuasar_agent.ttrpc import StatusError
from kuasar_debug.images import BOOT_INITRD
from kuasar_host.config import Config, RootDisk
from kuasar_host.errors import HostError
from kuasar_host.microvm import MicroVM
from tests.bench import guest
from tests.bench.table import show
from tests.support.guest import IMAGE
from tests.support.timeouts import GUEST

_SIZES = (96, 128, 160, 256, 512)


class Way(NamedTuple):
    """One way to boot the image."""

    name: str
    initrd: list[Path]
    root: RootDisk | None = None


def main() -> None:
    helper = [path for path in (IMAGE / BOOT_INITRD,) if path.exists()]
    disk = IMAGE / "kuasar.img"
    ways = (
        Way("initrd", [IMAGE / "kuasar.initrd"]),
        Way("disk, virtio", helper, RootDisk(disk)),
        Way("disk, pmem", helper, RootDisk(disk, pmem=True)),
    )
    rows = [_row(way, memory) for way in ways for memory in _SIZES]
    header = ["", "given", "usable", "in use", "root", "available", "serving, ms", "container"]
    title = (
        f"Memory of an idle guest, MiB, by the guest's own count (load {os.getloadavg()[0]:.1f})"
    )
    show(title, header, rows)
    print(
        "\n  usable: what the kernel leaves of it. in use: usable less available. root: of this,"
        "\n  the unpacked initrd. available: what a container could have."
    )


def _row(way: Way, memory: int) -> list[str | float]:
    with tempfile.TemporaryDirectory(prefix="kuasar-") as scratch:
        config = Config(
            directory=Path(scratch),
            kernel=IMAGE / "vmlinux",
            initrd=way.initrd,
            root=way.root,
            memory=memory,
            ready_within=GUEST,
        )
        try:
            with MicroVM.boot(config) as vm:
                text = guest.run(vm, "memory", ["cat", "/proc/meminfo"]).text
                serving = (vm.ready_at - vm.started_at) * 1000
        except HostError as error:
            return [way.name, str(memory), *["-"] * 5, str(error).splitlines()[0]]
        except (OSError, StatusError) as error:
            return [way.name, str(memory), *["-"] * 5, f"fails: {error}"]
    facts = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in text.splitlines()}
    usable, available = facts["MemTotal"], facts["MemAvailable"]
    # An initrd is unpacked into a tmpfs; what the kernel reads from a disk it can drop.
    used, root = usable - available, facts["Shmem"]
    return [way.name, str(memory), usable, used, root, available, f"{serving:.0f}", "runs"]
