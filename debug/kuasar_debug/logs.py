"""The guest's console, as `SerialLog` keeps it in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gevent

from kuasar_agent.log import LEVELS
from kuasar_host.errors import DebugError
from kuasar_host.serial_log import parse_line

__all__ = ["LEVELS", "read", "to_json", "wanted"]

_PAUSE = 0.2


def read(path: Path, *, follow: bool) -> Iterator[str]:
    """The lines; with `follow` those to come as well, for ever. Raises DebugError."""
    try:
        file = path.open(errors="replace")
    except OSError as error:
        raise DebugError(f"{path}: {error.strerror}") from None
    with file:
        line = ""
        while True:
            line += file.readline()
            if line.endswith("\n"):
                yield line.rstrip("\r\n")
                line = ""
            elif follow:
                gevent.sleep(_PAUSE)
            else:
                break
        if line:
            yield line


def wanted(line: str, level: str | None) -> bool:
    """Whether a line is of the agent's log and at least of `level`; any line without a level."""
    if level is None:
        return True
    given = LEVELS.get(parse_line(line).get("level", ""))
    return given is not None and given >= LEVELS[level]


def to_json(line: str) -> str:
    """The fields of the agent's line, else the line as `text`."""
    return json.dumps(parse_line(line) or {"text": line})
