"""`kuasar-debug`: boot microVMs and look inside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import gevent

from kuasar_agent import __version__
from kuasar_agent.ttrpc import StatusError
from kuasar_debug.errors import DebugError
from kuasar_debug.microvm import Config, MicroVM
from kuasar_debug.run import Run, summary

IMAGE = Path(os.environ.get("KUASAR_IMAGE", "build/image"))
_STOP_WITHIN = 10.0

path = click.Path(path_type=Path)


def boot_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how a microVM is booted."""
    options = [
        click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto"),
        click.option("--sharefs", type=click.Choice(["virtiofs", "9p"]), default="virtiofs"),
        click.option("--append", default="", help="more words for the kernel command line"),
        click.option("--memory", type=int, default=512, show_default=True, help="MiB"),
        click.option("--cpus", type=int, default=1, show_default=True),
        click.option("--kernel", type=path, default=IMAGE / "vmlinux", show_default=True),
        click.option(
            "--initrd",
            type=path,
            multiple=True,
            default=[IMAGE / "kuasar.initrd"],
            show_default=True,
            help="given more than once: concatenated in this order",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Boot microVMs with the Kuasar guest agent and look inside them."""


@main.command()
@click.option("--dir", "directory", type=path, required=True, help="where its files live")
@click.option("--detach", is_flag=True, help="return once the agent serves")
@click.option("--ready-fd", type=int, hidden=True, help="closed with a byte once it serves")
@boot_options
def boot(directory: Path, detach: bool, ready_fd: int | None, **options: Any) -> None:
    """Boot a microVM in the foreground, its console on the terminal; Ctrl-C stops it."""
    if detach:
        _boot_detached()
        return
    gevent.signal_handler(signal.SIGTERM, sys.exit, 0)
    gevent.signal_handler(signal.SIGINT, sys.exit, 0)
    with MicroVM.boot(make_config(directory, options, echo=click.echo)) as vm:
        click.echo(f"ready: {vm.address()} ({vm.accelerator.name}: {vm.accelerator.reason})")
        if ready_fd is not None:
            os.write(ready_fd, b"1")
            os.close(ready_fd)
        vm.wait()


@main.command()
@click.option("--dir", "directory", type=path, required=True)
def stop(directory: Path) -> None:
    """Stop the microVM of a directory."""
    try:
        pid = int((directory / "pid").read_text())
        process = os.pidfd_open(pid)
    except (OSError, ValueError):
        raise DebugError(f"{directory}: no microVM runs there") from None
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_WITHIN
    while (directory / "pid").exists():
        if time.monotonic() > deadline:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            return
        time.sleep(0.02)


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--rootfs", type=path, help="the container's root; busybox by default")
@click.option("--dir", "directory", type=path, help="keep the microVM's files there")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@boot_options
def run(
    rootfs: Path | None, directory: Path | None, command: tuple[str, ...], **options: Any
) -> None:
    """Boot a microVM, run COMMAND in a container in it, and exit with its status."""
    with tempfile.TemporaryDirectory(prefix="kuasar-") as scratch:
        config = make_config(directory or Path(scratch), options)
        click.echo("==> booting a microVM", err=True)
        with MicroVM.boot(config) as vm:
            container = Run(vm)
            try:
                status = container.run(command, rootfs)
            except (StatusError, OSError) as error:
                raise DebugError(f"{error}\nconsole:\n{vm.console.tail()}") from None
            click.echo(summary(vm, container, status), err=True)
    sys.exit(status)


def make_config(
    directory: Path, options: dict[str, Any], echo: Callable[[str], None] | None = None
) -> Config:
    """The configuration that the boot options ask for."""
    return Config(
        directory=directory.absolute(),
        kernel=options["kernel"],
        initrd=options["initrd"],
        accelerator=options["accel"],
        sharefs=options["sharefs"],
        memory=options["memory"],
        cpus=options["cpus"],
        append=options["append"],
        echo=echo,
    )


def _boot_detached() -> None:
    """Run the same command without --detach in a session of its own, and wait for its word."""
    arguments = [word for word in sys.argv[1:] if word != "--detach"]
    ready, theirs = os.pipe()
    with tempfile.TemporaryFile() as errors:
        subprocess.Popen(
            [sys.executable, "-m", "kuasar_debug", *arguments, "--ready-fd", str(theirs)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            pass_fds=[theirs],
        )
        os.close(theirs)
        # Without a byte the pipe was closed by the end of the process.
        if not os.read(ready, 1):
            errors.seek(0)
            raise DebugError(errors.read().decode().strip().removeprefix("Error: "))
