"""The options of `boot` and `run` that describe the microVM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kuasar_debug import images
from kuasar_host.config import Config, RootDisk
from kuasar_host.errors import HostError

_path = click.Path(path_type=Path)

_OPTIONS = (
    click.option(
        "--accel",
        "accelerator",
        type=click.Choice(["auto", "kvm", "tcg"]),
        default="auto",
        show_default=True,
        help="auto: KVM if it boots a kernel, else emulation (tcg)",
    ),
    click.option(
        "--sharefs",
        type=click.Choice(["virtiofs", "9p"]),
        default="virtiofs",
        show_default=True,
        help="file system of the shared directory; 9p needs neither root nor virtiofsd",
    ),
    click.option(
        "--vsock",
        type=click.Choice(["auto", "kernel", "user"]),
        default="auto",
        show_default=True,
        help="kernel: the host's vhost-vsock; user: our own; auto: the first that there is",
    ),
    click.option("--append", default="", help="further kernel parameters, as one word"),
    click.option(
        "--memory", type=click.IntRange(min=1), default=512, show_default=True, help="MiB"
    ),
    click.option(
        "--cpus",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="number of virtual CPUs",
    ),
    click.option(
        "--root-ports",
        type=click.IntRange(min=0),
        default=0,
        help="number of empty PCIe slots for hot-plug",
    ),
    click.option(
        "--kernel",
        type=_path,
        help=f"the guest's kernel  [default: {images.KERNEL} of {images.VARIABLE} or build/image]",
    ),
    click.option(
        "--initrd",
        type=_path,
        multiple=True,
        help=f"concatenated if given more than once  [default: {images.INITRD} beside the kernel's"
        " default]",
    ),
    click.option(
        "--image",
        type=_path,
        help=f"boot from this disk; the default initrd is {images.BOOT_INITRD} beside it, if any",
    ),
    click.option("--pmem", is_flag=True, help="attach the disk as persistent memory"),
)


def boot_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which gets them by the names of `make_config`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def make_config(
    directory: Path, options: dict[str, Any], echo: Callable[[str], None] | None = None
) -> Config:
    """Return the configuration that the options ask for.

    Raises:
        HostError: they contradict each other, or a file is missing.
    """
    fields = dict(options)
    image, pmem = fields.pop("image"), fields.pop("pmem")
    if image is not None:
        fields["root"] = RootDisk(image, pmem)
    elif pmem:
        raise HostError("--pmem needs the disk of --image")
    fields["kernel"] = fields["kernel"] or images.kernel_for(image)
    fields["initrd"] = list(fields["initrd"]) or images.initrd_for(image)
    images.check(fields["kernel"], *fields["initrd"], *([image] if image is not None else []))
    return Config(directory=directory.absolute(), echo=echo, **fields)
