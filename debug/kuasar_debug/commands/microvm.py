"""Commands that boot microVMs and end them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import gevent

from kuasar_agent.ttrpc import Code, StatusError
from kuasar_debug.boot_options import boot_options, make_config
from kuasar_debug.run import Run, summary
from kuasar_debug.timeline_text import text
from kuasar_host import sandbox as sandbox_
from kuasar_host import timeline as timeline_
from kuasar_host.address import explain_status
from kuasar_host.errors import HostError
from kuasar_host.microvm import MicroVM
from kuasar_host.sandbox import Sandbox, is_running

_directory = click.Path(path_type=Path, file_okay=False)


@click.command(short_help="Boot a microVM and keep it.")
@click.option("--dir", "directory", type=_directory, help="directory for the microVM's files")
@click.option(
    "--timeline",
    type=click.Path(path_type=Path, dir_okay=False),
    help="draw the boot's phases (.svg, .png, .pdf); without --dir the microVM then ends",
)
@click.option("--detach", is_flag=True, help="return once the agent serves")
@click.option("--ready-fd", type=int, hidden=True, help="gets a byte once the agent serves")
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
            raise HostError("give --dir, or --timeline to boot only for the picture")
        with _sandbox(None, options) as booted:
            _draw(booted, timeline)
        return
    config = make_config(directory, options, echo=click.echo)
    click.echo(f"==> booting a microVM in {directory}", err=True)
    if detach:
        _boot_detached()
        _show_next_steps(Sandbox.attach(directory.absolute()), directory, options["append"])
        return
    _exit_on(signal.SIGTERM, 0)
    _exit_on(signal.SIGINT, 0)
    with MicroVM.boot(config) as vm:
        click.echo(_ready(vm))
        if timeline is not None:
            _draw(vm, timeline)
        if ready_fd is not None:
            os.write(ready_fd, b"1")
            os.close(ready_fd)
        vm.wait()


@click.command(short_help="Stop a microVM of boot --detach.")
@click.option("--dir", "directory", type=_directory, required=True, help="directory of the microVM")
def stop(directory: Path) -> None:
    """Stop the microVM of a directory, and return once every process of it has ended."""
    sandbox_.stop(directory)


# Options stand before COMMAND: one that is unknown there is an error, not a command.
@click.command(
    short_help="Run a command in a container.", context_settings={"allow_interspersed_args": False}
)
@click.option(
    "--rootfs",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="root file system of the container, which gets a copy; else busybox",
)
@click.option(
    "--dir",
    "directory",
    type=_directory,
    help="run in the microVM of this directory, or boot one there",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@boot_options
def run(
    rootfs: Path | None, directory: Path | None, command: tuple[str, ...], **options: Any
) -> None:
    """Boot a microVM, run COMMAND in a container in it, and exit with its status.

    Input goes to the container unless it is a terminal. Ctrl-C kills the container.
    """
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
        except StatusError as error:
            if error.code != Code.UNAVAILABLE:
                raise HostError(explain_status(error)) from None
            raise HostError(f"{explain_status(error)}\n{sandbox.console.tail()}") from None
        except OSError as error:
            raise HostError(f"{error}\n{sandbox.console.tail()}") from None
        click.echo(summary(sandbox, container, status), err=True)
    sys.exit(status)


@contextlib.contextmanager
def _sandbox(directory: Path | None, options: dict[str, Any]) -> Iterator[Sandbox]:
    """Give the microVM that runs in `directory`, or one that ends with the block."""
    if directory is not None and is_running(directory):
        yield Sandbox.attach(directory.absolute())
        return
    with tempfile.TemporaryDirectory(prefix="kuasar-") as scratch:
        config = make_config(directory or Path(scratch), options)
        click.echo("==> booting a microVM", err=True)
        with MicroVM.boot(config) as vm:
            yield vm


def _draw(vm: Sandbox, path: Path) -> None:
    """Print the phases of the boot, and write the picture."""
    read = timeline_.read(vm)
    click.echo(text(read))
    try:
        # An extra: no other command needs a plotting library.
        from kuasar_debug import timeline_svg
    except ImportError:
        raise HostError("no picture without matplotlib: kuasar-agent[timeline]") from None
    try:
        timeline_svg.draw(read, path)
    except (ValueError, OSError) as error:
        raise HostError(f"{path}: {error}") from None


def _ready(vm: Sandbox) -> str:
    seconds = vm.ready_at - vm.started_at
    accelerator = f"{vm.accelerator.name}: {vm.accelerator.reason}"
    return f"ready after {seconds:.1f} s: {vm.address()} ({accelerator})"


def _show_next_steps(vm: Sandbox, directory: Path, append: str) -> None:
    click.echo(_ready(vm))
    steps = [f"run --dir {directory} -- COMMAND", f"logs --dir {directory}"]
    if "task.debug" in append.split():
        steps.insert(1, f"shell --dir {directory}")
    else:
        click.echo("  (shell and exec need a boot with --append task.debug)")
    for step in (*steps, f"stop --dir {directory}"):
        click.echo(f"  kuasar-debug {step}")


def _exit_on(number: int, status: int) -> None:
    gevent.signal_handler(number, sys.exit, status)


def _boot_detached() -> None:
    """Run the same command without --detach in a session of its own until its agent serves."""
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
            said = errors.read().decode(errors="replace")
            # The first line is the announcement of the boot; the console's end may follow.
            raise HostError((said.partition("Error: ")[2] or said).strip())
