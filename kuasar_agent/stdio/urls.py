"""The addresses of a process's standard streams."""

from __future__ import annotations

from typing import NamedTuple


class StdioUrls(NamedTuple):
    """Transport URL or guest path of each stream of a process; an empty string is /dev/null."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False
    """Whether the process gets a terminal, which carries stdin and stdout."""
