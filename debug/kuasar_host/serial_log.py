"""The guest's console: kept in a file, and read for what the agent reports on it."""

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
    """The fields of one log line; empty for a line of another kind, such as the kernel's."""
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
    """Copies the serial line to a file and remembers the agent's reports."""

    def __init__(self, path: Path, echo: Callable[[str], None] | None = None) -> None:
        self.steps: list[dict[str, str]] = []
        """The `boot step` lines, in order."""
        self.serving: dict[str, str] = {}
        """The `serving` line, once there is one."""
        self.panic: str | None = None
        self.init_at: float | None = None
        """When the agent's first line came, on time.monotonic()'s clock."""
        self.kernel_at: float | None = None
        """When the kernel's clock began to count, reckoned from the stamp of that line."""
        self.ended = gevent.event.Event()
        """Set when QEMU has closed the console."""
        self.changed = gevent.event.Event()
        """Set when the agent serves, the kernel panics, or the console ends."""
        self._path = path
        self._echo = echo

    def follow(self, stream: IO[bytes]) -> None:
        """Read until the console ends; `stream` must yield to other greenlets."""
        with self._path.open("ab", buffering=0) as file:
            for raw in stream:
                file.write(raw)
                self._read_line(raw.decode(errors="replace").rstrip("\r\n"))
        self.ended.set()
        self.changed.set()

    def read_past(self, init_at: float | None) -> None:
        """Learn what another process has already followed."""
        self._echo = None
        for line in self._path.read_text(errors="replace").splitlines():
            self._read_line(line)
        if self.init_at is not None and self.kernel_at is not None and init_at is not None:
            self.kernel_at += init_at - self.init_at
        self.init_at = init_at

    def tail(self) -> str:
        """The last lines, for an error message."""
        lines = self._path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def _read_line(self, line: str) -> None:
        if self._echo is not None:
            self._echo(line)
        if "Kernel panic" in line:
            self.panic = line
            self.changed.set()
        fields = parse_line(line)
        if fields and self.init_at is None:
            self.init_at = time.monotonic()
            with contextlib.suppress(ValueError):
                self.kernel_at = self.init_at - float(fields["ts"])
        if fields.get("msg") == "boot step" and {"step", "ms"} <= fields.keys():
            self.steps.append(fields)
        elif fields.get("msg") == "serving":
            self.serving = fields
            self.changed.set()
