"""`kuasar-debug`: boots microVMs and inspects guests."""

from __future__ import annotations

from typing import Any

import click
from click import shell_completion

from kuasar_agent import __version__
from kuasar_debug.commands import agent, containers, microvm
from kuasar_debug.commands import shell as shell_
from kuasar_host.errors import HostError


class _Commands(click.Group):
    """A group whose commands report HostError as `Error: <message>`, with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was given."""
        try:
            return super().invoke(ctx)
        except HostError as error:
            raise click.ClickException(str(error)) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of their registration, which is by subject."""
        return list(self.commands)


@click.group(cls=_Commands)
@click.version_option(__version__)
def main() -> None:
    """Boot microVMs with the Kuasar guest agent, and inspect the guests of Kuasar's sandboxes.

    SANDBOX is the id of a sandbox in /run/kuasar-vmm (or in $KUASAR_SANDBOXES), the beginning of
    its id, or the path of its directory.
    """


@click.command(short_help="Print the shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL: eval "$(kuasar-debug completion bash)"."""
    kind = shell_completion.get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "kuasar-debug", "_KUASAR_DEBUG_COMPLETE").source())


for _command in (
    *(microvm.run, microvm.boot, microvm.stop),
    *(shell_.shell, shell_.exec_command),
    *(containers.ps, containers.stats, containers.top, containers.events),
    *(agent.logs, agent.metrics, agent.leaks, agent.dump),
    completion,
):
    main.add_command(_command)
