"""Commands about the agent itself."""

from __future__ import annotations

import sys

import click
from google.protobuf.empty_pb2 import Empty

from kuasar_debug import logs as logs_
from kuasar_debug.address import guest_arguments
from kuasar_debug.output import as_json, end_quietly_on_interrupt, print_rows
from kuasar_host import sandboxes, services
from kuasar_host.address import GuestAddress
from kuasar_host.errors import HostError

_WITHIN = 30.0
_LEAKS = ("kind", "what", "detail")


@click.command(short_help="Print the guest's console.")
@as_json
@click.option("--follow", "-f", is_flag=True, help="wait for further lines; Ctrl-C ends it")
@click.option(
    "--level", type=click.Choice(list(logs_.LEVELS)), help="only the agent's lines from this level"
)
@guest_arguments()
def logs(guest: GuestAddress, as_json: bool, follow: bool, level: str | None) -> None:
    """Print the guest's console: the agent's log and the kernel's messages.

    It is a file of the host: console.log in the sandbox's directory, or Kuasar's
    /tmp/ID-task.log.
    """
    end_quietly_on_interrupt()
    if guest.directory is None:
        raise HostError("the console is a file of the host: name the sandbox or its directory")
    for line in logs_.read(sandboxes.console_log(guest.directory), follow=follow):
        if logs_.wanted(line, level):
            click.echo(logs_.to_json(line) if as_json else line)


@click.command(short_help="Print metrics for Prometheus.")
@guest_arguments()
def metrics(guest: GuestAddress) -> None:
    """Print the agent's metrics in Prometheus' text format."""
    with guest.client() as client:
        reply = client.stub(services.AGENT).metrics(Empty(), timeout=_WITHIN)
    click.echo(reply.text, nl=False)


@click.command(short_help="List leaked resources.")
@as_json
@guest_arguments()
def leaks(guest: GuestAddress, as_json: bool) -> None:
    """List leaked resources: those that no container, exec or connection owns any more.

    Descriptors, greenlets, zombies, mounts, cgroups, files and streams. The exit status is 1 if
    there are any. Resources that are being released can appear; run it twice to be sure.
    """
    with guest.client() as client:
        found = client.stub(services.AGENT).leaks(Empty(), timeout=_WITHIN).leaks
    rows = [{"kind": leak.kind, "what": leak.what, "detail": leak.detail} for leak in found]
    if rows:
        print_rows(rows, _LEAKS, as_json)
        sys.exit(1)


@click.command(short_help="Print the agent's state.")
@guest_arguments()
def dump(guest: GuestAddress) -> None:
    """Print greenlets with their stacks, containers, descriptors and mounts of the agent.

    SIGUSR2 to the agent writes the same to its log, even while a greenlet blocks the hub.
    """
    with guest.client() as client:
        for line in client.stub(services.AGENT).dump(Empty(), timeout=_WITHIN).lines:
            click.echo(line)
