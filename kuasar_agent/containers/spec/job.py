"""The type of a rule, its inputs, and access to the parts of a specification of any shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, cast

from kuasar_agent.containers.spec.guest import Guest

Json = dict[str, Any]

On = Literal["Create", "Exec", "Update"]

CREATE: On = "Create"
EXEC: On = "Exec"
UPDATE: On = "Update"


class Job:
    """One adaptation: its inputs, and the results beside the changed specification."""

    def __init__(
        self, guest: Guest, *, terminal: bool = False, size: tuple[int, int] | None = None
    ) -> None:
        self.guest = guest
        self.terminal = terminal
        """Whether the process gets a terminal, from the specification or from the request."""
        self.size = size
        """The terminal's width and height in characters, if the host has set them."""
        self.sysctls: dict[str, str] = {}
        """Kernel parameters that were taken out, for the guest's own namespaces."""


Change = Callable[[Json, Job], Iterator[str]]
"""Edits the specification; each item is one change, worded for the log."""


class Rule(NamedTuple):
    """One difference between host and guest; the texts are the table of docs/pods.md."""

    name: str
    fields: str
    does: str
    why: str
    source: str
    change: Change
    on: tuple[On, ...] = (CREATE,)
    loss: bool = False
    """The container gets less than its specification asks for."""


def section(spec: Json, *path: str) -> Json:
    """Return the object at `path`, or a new empty one, whose changes are lost."""
    found: Any = spec
    for key in path:
        found = found.get(key)
        if not isinstance(found, dict):
            return {}
    return cast(Json, found)


def entries(spec: Json, *path: str) -> list[Json]:
    """Return the objects in the array at `path`; an empty list where there is no array."""
    *parents, last = path
    found = section(spec, *parents).get(last)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def keep(spec: Json, path: tuple[str, ...], wanted: Callable[[Json], bool]) -> list[Json]:
    """Take the objects that are not `wanted` out of the array at `path`, and return them."""
    gone = [each for each in entries(spec, *path) if not wanted(each)]
    if gone:
        *parents, last = path
        holder = section(spec, *parents)
        holder[last] = [each for each in holder[last] if each not in gone]
    return gone
