"""Commands about the containers of a guest."""

from __future__ import annotations

import json
import sys
import time

import click
import gevent
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.ttrpc import DeadlineExceeded
from kuasar_debug import tables
from kuasar_debug.address import containers_of, guest_arguments
from kuasar_debug.output import as_json, end_quietly_on_interrupt, print_rows
from kuasar_host import services
from kuasar_host.address import GuestAddress
from kuasar_host.errors import HostError

_CLEAR = "\x1b[H\x1b[2J"


@click.command(short_help="List containers and their processes.")
@as_json
@guest_arguments("[CONTAINER]...")
def ps(guest: GuestAddress, words: tuple[str, ...], as_json: bool) -> None:
    """List containers and their processes.

    Without names, those that have a bundle in the sandbox's shared directory.
    """
    with guest.client() as client:
        rows = tables.processes(client, _names(guest, words), must_exist=bool(words))
    print_rows(rows, tables.PS, as_json)


@click.command(short_help="Show CPU time and memory of containers.")
@as_json
@guest_arguments("[CONTAINER]...")
def stats(guest: GuestAddress, words: tuple[str, ...], as_json: bool) -> None:
    """Show the CPU time, memory and processes of containers.

    With --json, all that the cgroups tell, with 2^64-1 or a number close to 2^63 for no limit.
    """
    with guest.client() as client:
        found = list(tables.metrics(client, _names(guest, words), must_exist=bool(words)))
    if as_json:
        for id, metrics in found:
            click.echo(json.dumps({"container": id, **tables.to_dict(metrics)}))
        return
    rows = [tables.stats_row(tables.usage(id, metrics)) for id, metrics in found]
    print_rows(rows, tables.STATS)


@click.command(short_help="Show CPU use and memory, repeatedly.")
@click.option(
    "--interval", type=float, default=2.0, show_default=True, help="seconds between two tables"
)
@click.option("--count", type=int, help="number of tables; without it, until Ctrl-C")
@guest_arguments("[CONTAINER]...")
def top(guest: GuestAddress, words: tuple[str, ...], interval: float, count: int | None) -> None:
    """Show the CPU use of containers since the last table, and their memory, repeatedly."""
    end_quietly_on_interrupt()
    last: dict[str, tables.Usage] = {}
    turn = 0
    with guest.client() as client:
        while True:
            found = tables.metrics(client, _names(guest, words), must_exist=bool(words))
            now = {id: tables.usage(id, metrics) for id, metrics in found}
            rows = [tables.top_row(usage, last.get(id)) for id, usage in now.items()]
            if sys.stdout.isatty():
                click.echo(_CLEAR, nl=False)
            click.echo(time.strftime("%H:%M:%S"))
            print_rows(rows, tables.TOP)
            last, turn = now, turn + 1
            if turn == count:
                return
            gevent.sleep(interval)


@click.command(short_help="Print events of containers.")
@as_json
@click.option("--count", type=int, help="number of events; without it, until Ctrl-C")
@click.option("--timeout", type=float, help="end after so many seconds without an event")
@guest_arguments()
def events(guest: GuestAddress, as_json: bool, count: int | None, timeout: float | None) -> None:
    """Print the events of containers as they happen.

    Each event goes to one listener: Kuasar does not see those that are printed here. The agent
    reports OOM kills; with task.events=all on the guest's kernel command line, all task events.
    """
    end_quietly_on_interrupt()
    turn = 0
    with guest.client() as client:
        sandbox = client.stub(services.SANDBOX)
        while turn != count:
            try:
                envelope = sandbox.get_events(Empty(), timeout=timeout)
            except DeadlineExceeded:
                return
            event = tables.event(envelope)
            click.echo(json.dumps(event) if as_json else tables.event_line(event))
            turn += 1


def _names(guest: GuestAddress, given: tuple[str, ...]) -> list[str]:
    """Return the containers that were named, else those with a bundle."""
    if given:
        return list(given)
    if guest.directory is None:
        raise HostError("name the containers: this address has no shared directory")
    return containers_of(guest.directory)
