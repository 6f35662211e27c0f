"""The greenlets of the hub's thread: their names, their stacks, the objects they work on."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TypeGuard, TypeVar

import gevent
from gevent.hub import Hub
from greenlet import getcurrent, greenlet

T = TypeVar("T")

DEPTH = 32
"""Number of frames of a stack that are shown, from the innermost outwards."""


def is_a(thing: object, *kinds: type[T]) -> TypeGuard[T]:
    """Return whether `thing` is an instance of one of the classes, without running its code.

    isinstance() also reads `__class__`, which loads a module of importlib.util.LazyLoader: a walk
    over all objects would block the hub for the import.
    """
    return issubclass(type(thing), kinds)


def all_greenlets() -> list[greenlet]:
    """Return the greenlets that have started or will, without hubs and threads' main greenlets."""
    # The greenlets of the thread pool's threads have another hub, or none, above them.
    hub = gevent.get_hub()
    # The hub stands still for this walk: a look-up of each object's class takes the least time.
    classes = _with_subclasses(greenlet) - _with_subclasses(Hub)
    return [
        found
        for found in gc.get_objects()
        if type(found) in classes
        and found.parent is not None
        and not found.dead
        and _is_ours(found, hub)
    ]


def _with_subclasses(kind: type) -> set[type]:
    return {kind}.union(*map(_with_subclasses, kind.__subclasses__()))


def _is_ours(found: greenlet, hub: Hub) -> bool:
    parent: greenlet | None = found
    while parent is not None and parent is not hub:
        parent = parent.parent
    return parent is hub and not type(found).__module__.startswith("gevent.threadpool")


def describe(found: greenlet) -> str:
    """Return the module and the qualified name of the function that a greenlet runs."""
    run = _run_of(found)
    if run is None:
        return "call worker" if type(found) is greenlet else type(found).__name__
    owner = getattr(run, "__self__", None)
    name = getattr(run, "__qualname__", repr(type(run).__name__))
    module = type(owner).__module__ if owner is not None else getattr(run, "__module__", "")
    return f"{module.removeprefix('kuasar_agent.')}.{name}"


def belongings(found: greenlet) -> Iterator[Any]:
    """Yield the objects a greenlet works on: its method's object, arguments, local variables."""
    run = _run_of(found)
    if run is not None:
        yield getattr(run, "__self__", None)
    yield from getattr(found, "args", None) or ()
    yield from (getattr(found, "kwargs", None) or {}).values()
    for frame in frames(found):
        # A walk's own frames hold every greenlet: each of them would count as reachable.
        if not frame.f_globals.get("__name__", "").startswith("kuasar_agent.observe."):
            yield from _locals(frame)


def frames(found: greenlet) -> Iterator[FrameType]:
    """Yield the frames of a greenlet from the innermost outwards."""
    frame = found.gr_frame
    if frame is None and found is getcurrent():
        frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def stack(frame: FrameType | None) -> list[str]:
    """Return `file:line function` for each frame, the innermost first, at most `DEPTH`."""
    lines: list[str] = []
    while frame is not None and len(lines) < DEPTH:
        code = frame.f_code
        lines.append(f"{_short(code.co_filename)}:{frame.f_lineno} {code.co_qualname}")
        frame = frame.f_back
    return lines


def thread_stacks() -> dict[str, list[str]]:
    """Return the stacks of all other threads by the thread's name."""
    me = threading.get_ident()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        f"{names.get(ident, 'native')}-{ident & 0xFFFF:x}": stack(frame)
        for ident, frame in sys._current_frames().items()
        if ident != me
    }


def _run_of(found: greenlet) -> Any:
    """Return the function of a greenlet, or None where greenlet no longer tells it."""
    return getattr(found, "_run", None)


def _locals(frame: FrameType) -> list[Any]:
    if not frame.f_code.co_flags & 0x1:  # CO_OPTIMIZED; a module's locals are its real dict
        return []
    # The frame keeps this snapshot: it would hold objects that the function drops later.
    snapshot = frame.f_locals
    values = list(snapshot.values())
    snapshot.clear()
    return values


def _short(path: str) -> str:
    for marker in ("/kuasar_agent/", "/dist-packages/", "/site-packages/", "/python3.11/"):
        _, found, rest = path.rpartition(marker)
        if found:
            return rest
    return path
