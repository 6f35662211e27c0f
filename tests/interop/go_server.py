"""Debian's Go ttrpc server as a process."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.interop.build import go_program


@contextmanager
def running_go_server(socket_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The echo service of `go/server`, accepting connections; killed at the end."""
    command = [str(go_program("server")), str(socket_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "serving\n"
            yield process
        finally:
            process.kill()
