"""`kuasar-agent`: the agent as an ordinary process, for trying things out without a guest."""

from __future__ import annotations

from pathlib import Path

import click

from kuasar_agent import __version__
from kuasar_agent.agent import Agent, ObserveSettings, Settings
from kuasar_agent.linux.syscalls import set_child_subreaper
from kuasar_agent.log import LEVELS, set_level
from kuasar_agent.ttrpc import listen


@click.group()
@click.version_option(__version__)
def main() -> None:
    """The guest agent of Kuasar's microVMs."""


@main.command()
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--ports", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--runtime", default="", help="crun or runc; the first one found by default")
@click.option("--runtime-timeout", default=60.0, show_default=True, help="seconds for it to hang")
@click.option("--namespaces", default="/run/sandbox-ns", show_default=True, help="the pod's")
@click.option("--all-events", is_flag=True, help="hand out every task event, not only OOM kills")
@click.option("--debug", is_flag=True, help="serve the debug console, which is PORTS/1025")
@click.option("--debug-shell", default="/bin/bash", show_default=True, help="what it runs")
@click.option("--log-level", type=click.Choice(list(LEVELS)), default="info", show_default=True)
@click.option("--trace", is_flag=True, help="trace from the start, not only after SIGUSR1")
@click.option("--trace-endpoint", default="", help="takes OTLP: http://HOST:PORT, vsock://CID:PORT")
def serve(
    state: Path,
    ports: Path,
    runtime: str,
    runtime_timeout: float,
    namespaces: str,
    all_events: bool,
    debug: bool,
    debug_shell: str,
    log_level: str,
    trace: bool,
    trace_endpoint: str,
) -> None:
    """Serve the bundles below STATE; the guest's port N is the unix socket PORTS/N."""
    set_level(log_level)
    set_child_subreaper()
    ports.mkdir(parents=True, exist_ok=True)
    agent = Agent(
        Settings(
            state=str(state),
            listen=lambda port: listen(f"unix://{ports}/{port}"),
            host_only=False,
            runtime=runtime,
            runtime_timeout=runtime_timeout,
            all_events=all_events,
            namespaces=namespaces,
            debug_shell=debug_shell if debug else "",
            port_wait=1.0,
            observe=ObserveSettings(trace=trace, trace_endpoint=trace_endpoint),
        )
    )
    agent.start()
    click.echo(f"serving on unix://{ports}/1024")
    agent.run()


if __name__ == "__main__":
    main()
