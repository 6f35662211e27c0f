"""A dump of the agent's state for its log: greenlets, threads, containers, descriptors, mounts.

It also runs in a signal handler, between any two bytecodes and while a greenlet blocks the hub:
it only reads, does not wait, and yields at most `MOST` lines of each kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kuasar_agent.linux.mount import mounts
from kuasar_agent.observe import greenlets, procfs

if TYPE_CHECKING:
    from kuasar_agent.observe.parts import Parts

MOST = 256
"""Lines of each kind."""

Fields = dict[str, Any]


class Entry(NamedTuple):
    """One line of the dump."""

    kind: str
    fields: Fields


def dump(parts: Parts) -> Iterator[Entry]:
    """Yield the lines, kind by kind; a kind that fails gives one line with its error."""
    for kind, source in _KINDS.items():
        count = 0
        try:
            for fields in source(parts):
                count += 1
                if count <= MOST:
                    yield Entry(kind, fields)
        except Exception as error:
            yield Entry(kind, {"error": error})
        if count > MOST:
            yield Entry(kind, {"more": count - MOST})


def _greenlets(_: Parts) -> Iterator[Fields]:
    for found in greenlets.all_greenlets():
        where = greenlets.stack(next(greenlets.frames(found), None))
        yield {"name": greenlets.describe(found), "stack": " < ".join(where)}


def _threads(_: Parts) -> Iterator[Fields]:
    for name, where in greenlets.thread_stacks().items():
        yield {"name": name, "stack": " < ".join(where)}


def _containers(parts: Parts) -> Iterator[Fields]:
    for id, container in parts.containers.live().items():
        if container is None:
            yield {"id": id, "status": "creating"}
        else:
            process = container.init
            yield {"id": id, "status": process.status.name.lower(), "pid": process.pid}


def _streams(parts: Parts) -> Iterator[Fields]:
    for id, output in parts.channels.outputs.items():
        yield {"id": id, "reader": output.has_reader, "empty": output.empty, "ended": output.ended}
    for id, input in parts.channels.inputs.items():
        yield {"id": id, "writer": input.has_writer, "pending": input.pending, "ended": input.ended}


def _fds(_: Parts) -> Iterator[Fields]:
    for number, target in sorted(procfs.open_fds().items()):
        yield {"fd": number, "is": target}


def _mounts(_: Parts) -> Iterator[Fields]:
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
