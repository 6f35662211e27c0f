"""The files that a guest boots from, and the errors for missing ones."""

from __future__ import annotations

import os
from pathlib import Path

from kuasar_host.errors import HostError

VARIABLE = "KUASAR_IMAGE"
KERNEL, INITRD, BOOT_INITRD = "vmlinux", "kuasar.initrd", "kuasar-boot.initrd"

_TREE = Path(__file__).parents[2]


def directory() -> Path:
    """Return the directory of the guest image: KUASAR_IMAGE's, or that of `make image`.

    Raises:
        HostError: there is neither, because the command was installed without its source tree.
    """
    if given := os.environ.get(VARIABLE):
        return Path(given)
    if not (_TREE / "image").is_dir():
        raise HostError(
            "no guest image: run `make image` in the source tree of kuasar-agent and set "
            f"{VARIABLE} to its build/image, or give --image, or --kernel and --initrd"
        )
    return _TREE / "build/image"


def kernel_for(disk: Path | None) -> Path:
    """Return the default kernel: that beside a disk, else that of the image directory."""
    if disk is not None and disk.with_name(KERNEL).exists():
        return disk.with_name(KERNEL)
    return directory() / KERNEL


def initrd_for(disk: Path | None) -> list[Path]:
    """Return the default initrd: for a disk the one beside it that mounts it, if there is one."""
    if disk is None:
        return [directory() / INITRD]
    helper = disk.with_name(BOOT_INITRD)
    return [helper] if helper.exists() else []


def check(*paths: Path) -> None:
    """Check that the files exist.

    Raises:
        HostError: one is missing.
    """
    for path in paths:
        if not path.exists():
            raise HostError(
                f"{path} does not exist: `make image` builds the guest's files; {VARIABLE}, "
                "--kernel, --initrd and --image name others"
            )
