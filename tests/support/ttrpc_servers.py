"""A server under test or under measurement as a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.go_build import go_program


@contextmanager
def running_server(command: Sequence[str], path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that gets a socket's path and prints a line once it serves; killed at the end."""
    with subprocess.Popen([*command, str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "serving\n"
            yield process
        finally:
            process.kill()


@contextmanager
def running_go_server(path: Path) -> Iterator[subprocess.Popen[str]]:
    """The echo service of `go/server`."""
    with running_server([str(go_program("server"))], path) as process:
        yield process
