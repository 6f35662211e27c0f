"""How long the agent takes from exec to serving, on the host without a guest."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click

import image
import kuasar_agent
from kuasar_agent.api import sandbox_pb2
from kuasar_agent.ttrpc import connect
from tests.bench.table import show
from tests.support.timeouts import TIMEOUT

STARTS = 20
_POLL = 0.0005

# What kuasar_agent.init does up to serving, without what only a guest has: mounts, modules.
_AS_INIT = """
import sys
*paths, state, ports = sys.argv[1:]
standins, *packages = paths
sys.path.insert(0, standins)
sys.path += packages
import kuasar_agent.init
import gc
gc.disable()
from kuasar_agent.boot import sequence
from kuasar_agent.agent import Agent, Settings
from kuasar_agent.linux import cgroup
from kuasar_agent.ttrpc import listen
address = "unix://" + ports + "/{}"
settings = Settings(
    state=state,
    listen=lambda port: listen(address.format(port)),
    config=sequence.TaskConfig(vsock_peers="any"),
)
agent = Agent(settings)
agent.start()
agent.run()
"""


class Start(NamedTuple):
    """Milliseconds since just before the process was made."""

    accepting: float
    answered: float


def main() -> None:
    ways = {"as PID 1: python -IS, init's imports": as_init, "kuasar-agent serve": as_command}
    rows: list[list[str | float]] = []
    for name, command in ways.items():
        _start(command)  # writes the bytecode that the image holds ready
        starts = [_start(command) for _ in range(STARTS)]
        rows.append([f"{name}, accepting", *_summary([s.accepting for s in starts])])
        rows.append([f"{name}, Check answered", *_summary([s.answered for s in starts])])
    load = os.getloadavg()[0]
    show(
        f"Start of the agent's process on the host, {STARTS} times "
        f"({os.cpu_count()} CPUs, load {load:.1f}), ms",
        ["exec to", "min", "p50", "p99"],
        rows,
    )


def as_init(directory: Path) -> list[str]:
    """The agent as the image starts it, except for the boot steps."""
    standins = Path(image.__file__).with_name("standins")
    source = Path(kuasar_agent.__file__).parents[1]
    paths = [str(standins), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    interpreter = str(Path(sys.executable).resolve())  # not the virtual environment's link
    arguments = [*paths, str(source), str(directory / "state"), str(directory)]
    return [interpreter, "-IS", "-c", _AS_INIT, *arguments]


def as_command(directory: Path) -> list[str]:
    """The agent as a developer starts it."""
    options = ["--state", str(directory / "state"), "--ports", str(directory)]
    return [sys.executable, "-m", "kuasar_agent.cli", "serve", *options]


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: of 20 values, the 99th is the largest."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def _summary(values: Sequence[float]) -> list[str | float]:
    return [min(values), percentile(values, 0.5), percentile(values, 0.99)]


def _start(command_in: Callable[[Path], list[str]]) -> Start:
    with tempfile.TemporaryDirectory(prefix="kuasar-") as scratch:
        directory = Path(scratch)
        (directory / "state").mkdir()
        command = command_in(directory)
        with (directory / "log").open("w+") as log:
            begun = time.monotonic()
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                _await_listener(directory / "1024", process)
                accepting = time.monotonic()
                _check(directory / "1024")
                answered = time.monotonic()
            except OSError as error:
                raise click.ClickException(f"{error}\n{(directory / 'log').read_text()}") from None
            finally:
                process.kill()
                process.wait()
    return Start((accepting - begun) * 1000, (answered - begun) * 1000)


def _await_listener(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(os.fspath(path))
                return
            except (FileNotFoundError, ConnectionRefusedError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
        time.sleep(_POLL)


def _check(path: Path) -> None:
    service = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]
    with connect(f"unix://{path}", TIMEOUT) as client:
        client.stub(service).check(sandbox_pb2.CheckRequest(), timeout=TIMEOUT)
