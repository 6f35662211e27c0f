"""Every file that `make image` writes boots, and a container runs from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kuasar_host.config import Config, RootDisk
from kuasar_host.microvm import MicroVM
from tests.support.guest import IMAGE, Guest, config

DISK = IMAGE / "kuasar.img"
# What mounts the disk where the kernel has its drivers as modules.
HELPERS = [path for path in (IMAGE / "kuasar-boot.initrd",) if path.exists()]
HEADER = 2 << 20


def run(options: Config, *command: str) -> bytes:
    """The output of a container in a new guest."""
    with MicroVM.boot(options) as vm:
        result = Guest(vm).run(*command, guest_pids=True)
        assert result.status == 0, result
        return result.stdout


def test_boots_from_the_initrd_for_old_kernels(tmp_path: Path) -> None:
    options = config(tmp_path, initrd=[IMAGE / "kuasar.initrd.gz"], sharefs="9p")
    assert run(options, "echo", "hello") == b"hello\n"


# In pairs, not each with each: an emulated boot takes ten seconds.
@pytest.mark.parametrize(("pmem", "sharefs"), [(False, "9p"), (True, "virtiofs")])
def test_boots_from_the_disk(tmp_path: Path, pmem: bool, sharefs: str) -> None:
    before = DISK.stat()
    root = RootDisk(DISK, pmem)
    options = config(tmp_path, root=root, initrd=HELPERS, sharefs=sharefs)
    device = "pmem0" if pmem else "vda"
    script = f"grep ' / ' /proc/1/mounts; cat /sys/class/block/{device}/size"
    mount, sectors = run(options, "sh", "-c", script).decode().splitlines()
    _, place, kind, flags, *_ = mount.split()
    assert (place, kind, flags.split(",")[0]) == ("/", "ext4", "ro")
    # The pmem driver has understood the header: what it shows starts behind it.
    assert int(sectors) * 512 == before.st_size - (HEADER if pmem else 0)
    assert DISK.stat().st_mtime_ns == before.st_mtime_ns
