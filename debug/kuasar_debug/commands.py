"""The commands that look inside a running sandbox."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import click
import gevent
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.ttrpc import DeadlineExceeded
from kuasar_debug import exec as exec_
from kuasar_debug import logs as logs_
from kuasar_debug import shell as shell_
from kuasar_debug import tables
from kuasar_debug.address import CONSOLE_PORT, Target, options
from kuasar_debug.timeline import AGENT
from kuasar_host.errors import DebugError

_WITHIN = 30.0
_CLEAR = "\x1b[H\x1b[2J"

as_json = click.option("--json", "as_json", is_flag=True, help="one JSON document per line")
containers = click.argument("containers", nargs=-1, metavar="[CONTAINER]...")


@click.command()
@options
def shell(target: Target) -> None:
    """Open a shell in the guest; Ctrl-] kills it. Exits with the shell's status.

    The guest needs task.debug on its kernel command line.
    """
    sys.exit(shell_.run(target))


@click.command(name="exec", context_settings={"ignore_unknown_options": True})
@click.option("--timeout", type=float, help="seconds; then the command is killed: status 124")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@options
def exec_command(target: Target, timeout: float | None, command: Sequence[str]) -> None:
    """Run COMMAND in the guest, outside of every container, and exit with its status.

    Its output and errors come as one; it has no input. Ctrl-C kills it: status 130.
    """
    gevent.signal_handler(signal.SIGINT, sys.exit, exec_.INTERRUPTED)
    # Closing the connection is what ends the command.
    with target.dial(CONSOLE_PORT) as peer, gevent.Timeout(timeout) as timer:
        try:
            status = exec_.run(peer, command, _write)
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            click.echo(f"killed after {timeout:g} s", err=True)
            status = exec_.TIMED_OUT
    sys.exit(status)


@click.command()
@as_json
@containers
@options
def ps(target: Target, containers: Sequence[str], as_json: bool) -> None:
    """List containers and their processes.

    Without names, those whose bundles lie in the sandbox's shared directory.
    """
    with target.client() as client:
        ids = tables.names(target, containers)
        rows = tables.processes(client, ids, must_exist=bool(containers))
    _print(rows, as_json)


@click.command()
@as_json
@containers
@options
def stats(target: Target, containers: Sequence[str], as_json: bool) -> None:
    """Show what containers use: CPU time, memory, processes."""
    with target.client() as client:
        ids = tables.names(target, containers)
        found = list(tables.metrics(client, ids, must_exist=bool(containers)))
    if as_json:
        for id, metrics in found:
            click.echo(json.dumps({"container": id, **tables.to_dict(metrics)}))
        return
    used = [tables.usage(id, metrics) for id, metrics in found]
    _print([tables.stats_row(usage) for usage in used], False, tables.STATS)


@click.command()
@click.option("--interval", type=float, default=2.0, show_default=True, help="seconds")
@click.option("--count", type=int, help="stop after so many; else Ctrl-C does")
@containers
@options
def top(target: Target, containers: Sequence[str], interval: float, count: int | None) -> None:
    """Show what containers use, again and again, with the CPU's share in between."""
    _quiet_interrupt()
    last: dict[str, tables.Usage] = {}
    turn = 0
    with target.client() as client:
        while True:
            ids = tables.names(target, containers)
            found = tables.metrics(client, ids, must_exist=bool(containers))
            now = {id: tables.usage(id, metrics) for id, metrics in found}
            rows = [tables.top_row(usage, last.get(id)) for id, usage in now.items()]
            if sys.stdout.isatty():
                click.echo(_CLEAR, nl=False)
            click.echo(time.strftime("%H:%M:%S"))
            _print(rows, False, tables.TOP)
            last, turn = now, turn + 1
            if turn == count:
                return
            gevent.sleep(interval)


@click.command()
@as_json
@click.option("--count", type=int, help="stop after so many; else Ctrl-C does")
@click.option("--timeout", type=float, help="seconds to wait for each; then stop")
@options
def events(target: Target, as_json: bool, count: int | None, timeout: float | None) -> None:
    """Print what happens to containers, as it happens.

    Each event goes to one listener only: what is shown here does not reach Kuasar.
    """
    _quiet_interrupt()
    turn = 0
    with target.client() as client:
        sandbox = client.stub(tables.SANDBOX)
        while turn != count:
            try:
                envelope = sandbox.get_events(Empty(), timeout=timeout)
            except DeadlineExceeded:
                return
            event = tables.event(envelope)
            click.echo(json.dumps(event) if as_json else tables.event_line(event))
            turn += 1


@click.command()
@as_json
@click.option("--follow", "-f", is_flag=True, help="go on as lines come; Ctrl-C stops")
@click.option("--level", type=click.Choice(list(logs_.LEVELS)), help="the agent's lines from here")
@options
def logs(target: Target, as_json: bool, follow: bool, level: str | None) -> None:
    """Print the guest's console: the agent's log and the kernel's messages.

    It is the file console.log in the sandbox's directory.
    """
    _quiet_interrupt()
    if target.directory is None:
        raise DebugError("the console is a file of the host: give --dir")
    for line in logs_.read(target.directory / "console.log", follow=follow):
        if logs_.wanted(line, level):
            click.echo(logs_.to_json(line) if as_json else line)


@click.command()
@options
def metrics(target: Target) -> None:
    """Print the agent's metrics in Prometheus' text format."""
    with target.client() as client:
        reply = client.stub(AGENT).metrics(Empty(), timeout=_WITHIN)
    click.echo(reply.text, nl=False)


@click.command()
@as_json
@options
def leaks(target: Target, as_json: bool) -> None:
    """List what is in the guest and belongs to nothing that lives; status 1 if there is any.

    Descriptors, greenlets, zombies, mounts, cgroups, files, streams. What was just being given
    back may show: ask twice.
    """
    with target.client() as client:
        found = client.stub(AGENT).leaks(Empty(), timeout=_WITHIN).leaks
    rows = [{"kind": leak.kind, "what": leak.what, "detail": leak.detail} for leak in found]
    if rows:
        _print(rows, as_json, ("kind", "what", "detail"))
        sys.exit(1)


@click.command()
@options
def dump(target: Target) -> None:
    """Print what the agent is doing: greenlets with stacks, containers, descriptors, mounts.

    SIGUSR2 writes the same to the agent's log, even while a greenlet keeps the hub.
    """
    with target.client() as client:
        for line in client.stub(AGENT).dump(Empty(), timeout=_WITHIN).lines:
            click.echo(line)


COMMANDS = (shell, exec_command, ps, stats, top, events, logs, metrics, leaks, dump)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _quiet_interrupt() -> None:
    gevent.signal_handler(signal.SIGINT, sys.exit, exec_.INTERRUPTED)


def _print(
    rows: Sequence[dict[str, Any]], as_json: bool, columns: Sequence[str] = tables.PS
) -> None:
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    else:
        click.echo(tables.table(columns, rows))
