"""Commands that run programs in the guest itself, outside of every container."""

from __future__ import annotations

import signal
import sys

import click
import gevent

from kuasar_debug import exec as exec_
from kuasar_debug import shell as shell_
from kuasar_debug.address import guest_arguments
from kuasar_host.address import GuestAddress
from kuasar_host.errors import HostError
from kuasar_host.services import DEBUG_PORT


@click.command(short_help="Open a shell in the guest.")
@guest_arguments()
def shell(guest: GuestAddress) -> None:
    """Open a shell in the guest, and exit with its status; Ctrl-] kills it.

    The guest needs task.debug on its kernel command line.
    """
    sys.exit(shell_.run(guest))


# Options stand before SANDBOX and COMMAND: one that is unknown there is an error.
@click.command(
    name="exec",
    short_help="Run a command in the guest.",
    context_settings={"allow_interspersed_args": False},
)
@click.option("--timeout", type=float, help="seconds after which COMMAND is killed: status 124")
@guest_arguments("[--] COMMAND...")
def exec_command(guest: GuestAddress, timeout: float | None, words: tuple[str, ...]) -> None:
    """Run COMMAND in the guest, outside of every container, and exit with its status.

    Its output and errors come as one stream; it has no input. Ctrl-C kills it: status 130. The
    guest needs task.debug on its kernel command line.
    """
    command = _command(words)
    gevent.signal_handler(signal.SIGINT, sys.exit, exec_.INTERRUPTED)
    # The agent ends the command when the connection is closed.
    with guest.dial(DEBUG_PORT) as peer, gevent.Timeout(timeout) as timer:
        try:
            status = exec_.run(peer, command, _write)
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            click.echo(f"killed after {timeout:g} s", err=True)
            status = exec_.TIMED_OUT
    sys.exit(status)


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of the command, without the `--` that may stand before it."""
    if words[:1] == ("--",):
        words = words[1:]
    elif words and words[0].startswith("-"):
        raise HostError(f"options stand before SANDBOX: {words[0]}")
    if not words:
        raise HostError("name a command")
    return words


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
