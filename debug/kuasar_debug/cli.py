"""`kuasar-debug`: boot microVMs and look inside them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import gevent
from click import shell_completion

from kuasar_agent import __version__
from kuasar_agent.ttrpc import StatusError
from kuasar_debug.commands import COMMANDS
from kuasar_debug.run import Run, summary
from kuasar_host.errors import DebugError
from kuasar_host.microvm import Config, MicroVM
from kuasar_host.root_disk import RootDisk
from kuasar_host.sandbox import Sandbox, is_running
from kuasar_host.sandbox import stop as stop_microvm

IMAGE = Path(os.environ.get("KUASAR_IMAGE") or Path(__file__).parents[2] / "build/image")
INITRD = IMAGE / "kuasar.initrd"
BOOT_INITRD = "kuasar-boot.initrd"

path = click.Path(path_type=Path)


def boot_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how a microVM is booted."""
    options = [
        click.option(
            "--accel",
            type=click.Choice(["auto", "kvm", "tcg"]),
            default="auto",
            help="auto: KVM if it proves to work, else emulation",
        ),
        click.option("--sharefs", type=click.Choice(["virtiofs", "9p"]), default="virtiofs"),
        click.option(
            "--vsock",
            type=click.Choice(["auto", "kernel", "user"]),
            default="auto",
            help="kernel: the host's vhost-vsock; user: our own; auto: the first if there is one",
        ),
        click.option("--append", default="", help="more words for the kernel command line"),
        click.option("--memory", type=int, default=512, show_default=True, help="MiB"),
        click.option("--cpus", type=int, default=1, show_default=True),
        click.option("--root-ports", type=int, default=0, help="empty slots for hot-plug"),
        click.option("--kernel", type=path, default=IMAGE / "vmlinux", show_default=True),
        click.option(
            "--initrd",
            type=path,
            multiple=True,
            help=f"given more than once: concatenated in this order  [default: {INITRD}]",
        ),
        click.option(
            "--image",
            type=path,
            help="boot from this disk; the initrd is then kuasar-boot.initrd beside it, if there",
        ),
        click.option("--pmem", is_flag=True, help="the disk is persistent memory, not virtio"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Boot microVMs with the Kuasar guest agent and look inside them."""


for _command in COMMANDS:
    main.add_command(_command)


@main.command()
@click.option("--dir", "directory", type=path, help="where its files live")
@click.option(
    "--timeline", type=path, help="draw start-up (.svg, .png, .pdf); without --dir, then stop"
)
@click.option("--detach", is_flag=True, help="return once the agent serves")
@click.option("--ready-fd", type=int, hidden=True, help="closed with a byte once it serves")
@boot_options
def boot(
    directory: Path | None,
    timeline: Path | None,
    detach: bool,
    ready_fd: int | None,
    **options: Any,
) -> None:
    """Boot a microVM in the foreground, its console on the terminal; Ctrl-C stops it."""
    if directory is None:
        if timeline is None or detach:
            raise DebugError("give --dir, or --timeline to boot only for the picture")
        with _sandbox(None, options) as booted:
            _draw(booted, timeline)
        return
    if detach:
        _boot_detached()
        return
    _exit_on(signal.SIGTERM, 0)
    _exit_on(signal.SIGINT, 0)
    with MicroVM.boot(make_config(directory, options, echo=click.echo)) as vm:
        click.echo(f"ready: {vm.address()} ({vm.accelerator.name}: {vm.accelerator.reason})")
        if timeline is not None:
            _draw(vm, timeline)
        if ready_fd is not None:
            os.write(ready_fd, b"1")
            os.close(ready_fd)
        vm.wait()


@main.command()
@click.option("--dir", "directory", type=path, required=True)
def stop(directory: Path) -> None:
    """Stop the microVM of a directory."""
    stop_microvm(directory)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what SHELL needs to complete these commands: eval "$(kuasar-debug completion bash)"."""
    kind = shell_completion.get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "kuasar-debug", "_KUASAR_DEBUG_COMPLETE").source())


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--rootfs", type=path, help="the container's root, which is copied; else busybox")
@click.option(
    "--dir", "directory", type=path, help="use the microVM that runs there, or boot one there"
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@boot_options
def run(
    rootfs: Path | None, directory: Path | None, command: tuple[str, ...], **options: Any
) -> None:
    """Boot a microVM, run COMMAND in a container in it, and exit with its status."""
    container: Run | None = None

    def interrupt() -> None:
        if container is None or not container.kill():
            sys.exit(128 + signal.SIGINT)

    gevent.signal_handler(signal.SIGINT, interrupt)
    _exit_on(signal.SIGTERM, 128 + signal.SIGTERM)
    with _sandbox(directory, options) as sandbox:
        container = Run(sandbox)
        try:
            status = container.run(command, rootfs)
        except (StatusError, OSError) as error:
            raise DebugError(f"{error}\n{sandbox.console.tail()}") from None
        click.echo(summary(sandbox, container, status), err=True)
    sys.exit(status)


@contextlib.contextmanager
def _sandbox(directory: Path | None, options: dict[str, Any]) -> Iterator[Sandbox]:
    """The microVM that runs in `directory`, or one that lives as long as the block."""
    if directory is not None and is_running(directory):
        yield Sandbox.attach(directory.absolute())
        return
    with tempfile.TemporaryDirectory(prefix="kuasar-") as scratch:
        config = make_config(directory or Path(scratch), options)
        click.echo("==> booting a microVM", err=True)
        with MicroVM.boot(config) as vm:
            yield vm


def _draw(vm: Sandbox, path: Path) -> None:
    """The timeline as text, and as a picture."""
    from kuasar_debug import timeline

    read = timeline.read(vm)
    click.echo(timeline.text(read))
    try:
        # An extra: no other command needs a plotting library.
        from kuasar_debug import timeline_svg
    except ImportError:
        raise DebugError("no picture without matplotlib: kuasar-agent[timeline]") from None
    try:
        timeline_svg.draw(read, path)
    except (ValueError, OSError) as error:
        raise DebugError(f"{path}: {error}") from None


def make_config(
    directory: Path, options: dict[str, Any], echo: Callable[[str], None] | None = None
) -> Config:
    """The configuration that the boot options ask for."""
    names = {"accel": "accelerator"}
    fields = {names.get(name, name): value for name, value in options.items()}
    image, pmem = fields.pop("image"), fields.pop("pmem")
    if image is not None:
        fields["root"] = RootDisk(image, pmem)
    elif pmem:
        raise DebugError("--pmem says how to attach the disk of --image")
    fields["initrd"] = fields["initrd"] or _initrd_for(image)
    return Config(directory=directory.absolute(), echo=echo, **fields)


def _initrd_for(image: Path | None) -> list[Path]:
    if image is None:
        return [INITRD]
    helper = image.with_name(BOOT_INITRD)
    return [helper] if helper.exists() else []


def _exit_on(number: int, status: int) -> None:
    gevent.signal_handler(number, sys.exit, status)


def _boot_detached() -> None:
    """Run the same command without --detach in a session of its own, and wait for its word."""
    arguments = [word for word in sys.argv[1:] if word != "--detach"]
    ready, theirs = os.pipe()
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "kuasar_debug", *arguments, "--ready-fd", str(theirs)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            pass_fds=[theirs],
        )
        os.close(theirs)
        try:
            # Without a byte the pipe was closed by the end of the process.
            serves = os.read(ready, 1)
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
        if not serves:
            errors.seek(0)
            raise DebugError(errors.read().decode().strip().removeprefix("Error: "))
