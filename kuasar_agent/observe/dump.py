"""Everything that the agent is doing, in lines for its log.

Runs in a signal's handler too, between any two bytecodes and even while a greenlet keeps the hub:
it only reads, does not wait, and is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kuasar_agent.linux.mount import mounts
from kuasar_agent.observe import greenlets, procfs

if TYPE_CHECKING:
    from kuasar_agent.agent import Agent

MOST = 256
"""Lines of each kind."""

Fields = dict[str, Any]


class Entry(NamedTuple):
    """One line: what it is about, and its fields."""

    kind: str
    fields: Fields


def dump(agent: Agent) -> Iterator[Entry]:
    """The lines, kind by kind; a kind that fails says so and the others follow."""
    for kind, source in _KINDS.items():
        count = 0
        try:
            for fields in source(agent):
                count += 1
                if count <= MOST:
                    yield Entry(kind, fields)
        except Exception as error:
            yield Entry(kind, {"error": error})
        if count > MOST:
            yield Entry(kind, {"more": count - MOST})


def _greenlets(_: Agent) -> Iterator[Fields]:
    for found in greenlets.all_greenlets():
        where = greenlets.stack(next(greenlets.frames(found), None))
        yield {"name": greenlets.describe(found), "stack": " < ".join(where)}


def _threads(_: Agent) -> Iterator[Fields]:
    for name, where in greenlets.thread_stacks().items():
        yield {"name": name, "stack": " < ".join(where)}


def _containers(agent: Agent) -> Iterator[Fields]:
    for id, container in agent.containers.live().items():
        if container is None:
            yield {"id": id, "status": "creating"}
        else:
            process = container.init
            yield {"id": id, "status": process.status.name.lower(), "pid": process.pid}


def _streams(agent: Agent) -> Iterator[Fields]:
    for id, output in agent.channels.outputs.items():
        yield {"id": id, "reader": output.has_reader, "empty": output.empty, "ended": output.ended}
    for id, input in agent.channels.inputs.items():
        yield {"id": id, "writer": input.has_writer, "pending": input.pending, "ended": input.ended}


def _fds(_: Agent) -> Iterator[Fields]:
    for number, target in sorted(procfs.open_fds().items()):
        yield {"fd": number, "is": target}


def _mounts(_: Agent) -> Iterator[Fields]:
    for entry in mounts():
        yield {"target": entry.target, "fstype": entry.fstype, "source": entry.source}


_KINDS = {
    "greenlet": _greenlets,
    "thread": _threads,
    "container": _containers,
    "stream": _streams,
    "descriptor": _fds,
    "mount": _mounts,
}
