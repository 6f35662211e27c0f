"""Bundles that the library for hosts makes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kuasar_host.bundle import make_bundle
from kuasar_host.errors import HostError


def test_a_root_file_system_is_copied_with_devices_owners_and_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "dev").mkdir(parents=True)
    os.mknod(root / "dev/console", stat.S_IFCHR | 0o600, os.makedev(5, 1))
    # Whoever opens it for reading waits for a writer.
    os.mkfifo(root / "dev/initctl")
    (root / "home").mkdir()
    os.chown(root / "home", 1000, 1000)
    (root / "home/link").symlink_to("/nowhere")
    copy = make_bundle(tmp_path, "c1", ["true"], root) / "rootfs"
    console = (copy / "dev/console").lstat()
    assert (stat.S_ISCHR(console.st_mode), console.st_rdev) == (True, os.makedev(5, 1))
    assert (copy / "dev/initctl").is_fifo()
    assert (copy / "home").stat().st_uid == 1000
    assert (copy / "home/link").readlink() == Path("/nowhere")


def test_a_root_file_system_that_cannot_be_copied_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"missing cannot be copied: .*No such file"):
        make_bundle(tmp_path, "c1", ["true"], tmp_path / "missing")
