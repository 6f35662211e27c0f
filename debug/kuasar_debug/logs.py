"""Lines of the guest's console, read from the file in which the host keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gevent

from kuasar_agent.log import LEVELS
from kuasar_host.errors import HostError
from kuasar_host.serial_log import parse_line

__all__ = ["LEVELS", "read", "to_json", "wanted"]

_PAUSE = 0.2


def read(path: Path, *, follow: bool) -> Iterator[str]:
    """Yield the lines, and with `follow` later ones too, without an end.

    Raises:
        HostError: the file cannot be read.

    Blocks: the greenlet.
    """
    try:
        file = path.open(errors="replace")
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from None
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
    """Return whether a line is of the agent's log and at least of `level`; any line if None."""
    if level is None:
        return True
    given = LEVELS.get(parse_line(line).get("level", ""))
    return given is not None and given >= LEVELS[level]


def to_json(line: str) -> str:
    """Return the fields of a line of the agent's log, or another line as `text`."""
    return json.dumps(parse_line(line) or {"text": line})
