"""`kuasar-agent`: the agent as an ordinary process, for trials without a guest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from kuasar_agent import __version__
from kuasar_agent import log as logs
from kuasar_agent.agent import Agent, Settings
from kuasar_agent.boot.config import Declared, TaskConfig, declarations
from kuasar_agent.containers.runtime import TIMEOUT
from kuasar_agent.directories import NAMESPACES
from kuasar_agent.linux.syscalls import set_child_subreaper
from kuasar_agent.ttrpc import listen

F = TypeVar("F", bound=Callable[..., Any])

_PORT_WAIT = 1.0
"""Seconds for which a virtio-serial port may be missing: on a host none will be plugged in."""


def _setting_options(function: F) -> F:
    """Add an option for each setting that is not of the guest only."""
    for declared in reversed(list(declarations())):
        if not declared.setting.guest_only:
            function = _option(declared)(function)
    return function


def _option(declared: Declared) -> Callable[[F], F]:
    name = f"--{declared.name.replace('_', '-')}"
    text = declared.setting.meaning
    if declared.is_switch:
        return click.option(name, is_flag=True, help=text)

    def parse(ctx: click.Context, param: click.Parameter, value: str | None) -> object:
        try:
            return None if value is None else declared.parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return click.option(
        name,
        type=click.Choice([each for each in declared.choices if each]) if declared.choices else str,
        metavar=declared.setting.form or None,
        default=str(declared.default) or None,
        show_default=bool(declared.default),
        callback=parse,
        help=text,
    )


@click.group()
@click.version_option(__version__)
def main() -> None:
    """The guest agent of Kuasar's microVMs."""


@main.command()
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="directory with a bundle for each container, shared by the host in a guest",
)
@click.option(
    "--ports",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="directory of the unix sockets that stand for the guest's vsock ports",
)
@click.option(
    "--runtime-timeout",
    default=TIMEOUT,
    show_default=True,
    help="seconds after which a command of the runtime is killed",
)
@click.option(
    "--namespaces",
    default=NAMESPACES,
    show_default=True,
    help="directory of the pod's namespaces",
)
@_setting_options
def serve(state: Path, ports: Path, runtime_timeout: float, namespaces: str, **values: Any) -> None:
    """Serve the bundles below STATE; the guest's port N is the unix socket PORTS/N."""
    given = {name: value for name, value in values.items() if value is not None}
    config = TaskConfig(vsock_peers="any")._replace(**given)
    logs.set_level(config.log_level)
    logs.set_format(config.log_format)
    set_child_subreaper()
    ports.mkdir(parents=True, exist_ok=True)
    agent = Agent(
        Settings(
            state=str(state),
            listen=lambda port: listen(f"unix://{ports}/{port}"),
            config=config,
            runtime_timeout=runtime_timeout,
            namespaces=namespaces,
            port_wait=_PORT_WAIT,
        )
    )
    agent.start()
    click.echo(f"serving on unix://{ports}/1024")
    agent.run()


if __name__ == "__main__":
    main()
