"""The guest's console: kept in a file, and searched for panics and the agent's first lines."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import gevent.event

TAIL_LINES = 25


def parse_line(line: str) -> dict[str, str]:
    """Return the fields of a line of the agent's log; none for other lines, as the kernel's."""
    if line.startswith('{"ts":'):
        try:
            return {key: _as_text(value) for key, value in json.loads(line).items()}
        except ValueError:
            return {}
    if not line.startswith("ts="):
        return {}
    try:
        words = shlex.split(line)
    except ValueError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class SerialLog:
    """Copy of the serial line in a file, and the facts that the host learns from it."""

    def __init__(self, path: Path, echo: Callable[[str], None] | None = None) -> None:
        """`path` is the file; `echo` gets every line."""
        self.panic: str | None = None
        """The kernel's line about its panic."""
        self.init_at: float | None = None
        """When the agent's first line came, on time.monotonic()'s clock."""
        self.kernel_at: float | None = None
        """When the kernel's clock began, calculated from the time stamp of that line."""
        self.ended = gevent.event.Event()
        """Set when QEMU has closed the console."""
        self._serving: dict[str, str] = {}
        self._has_serving = gevent.event.Event()
        self._path = path
        self._echo = echo

    def follow(self, stream: IO[bytes]) -> None:
        """Read until the console ends; `stream` must yield to other greenlets."""
        with self._path.open("ab", buffering=0) as file:
            for raw in stream:
                file.write(raw)
                self._read_line(raw.decode(errors="replace").rstrip("\r\n"))
        self.ended.set()

    def read_past(self, init_at: float | None) -> None:
        """Read what another process has followed; `init_at` is what that process saw."""
        self._echo = None
        for line in self._path.read_text(errors="replace").splitlines():
            self._read_line(line)
        if self.init_at is None or self.kernel_at is None or init_at is None:
            self.kernel_at = None
        else:
            self.kernel_at += init_at - self.init_at
        self.init_at = init_at

    def serving(self, within: float = 0.0) -> dict[str, str]:
        """Return the fields of the agent's line `serving`; none if it has not come.

        The line is not printed with `task.log_level=warn`, and on a slow serial line it comes after
        the agent's first answer over vsock.

        Blocks: the greenlet, for `within` seconds.
        """
        self._has_serving.wait(within)
        return self._serving

    def tail(self) -> str:
        """Return the last lines, for an error message."""
        lines = self._path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def _read_line(self, line: str) -> None:
        if self._echo is not None:
            self._echo(line)
        if "Kernel panic" in line:
            self.panic = line
        fields = parse_line(line)
        if fields and self.init_at is None:
            self.init_at = time.monotonic()
            with contextlib.suppress(ValueError):
                self.kernel_at = self.init_at - float(fields["ts"])
        if fields.get("msg") == "serving":
            self._serving = fields
            self._has_serving.set()
