"""Every greenlet of the hub's thread: what it is, and where it waits."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import gevent
from gevent.hub import Hub
from greenlet import getcurrent, greenlet

DEPTH = 32
"""Innermost frames of a stack that are shown."""


def all_greenlets() -> list[greenlet]:
    """Those that have begun or will, without the hub and those that stand for whole threads."""
    # Those of the thread pool's threads have a parent that is no hub of ours.
    hub = gevent.get_hub()
    return [
        found
        for found in gc.get_objects()
        if isinstance(found, greenlet)
        and not isinstance(found, Hub)
        and found.parent is not None
        and not found.dead
        and _is_ours(found, hub)
    ]


def _is_ours(found: greenlet, hub: Hub) -> bool:
    parent: greenlet | None = found
    while parent is not None and parent is not hub:
        parent = parent.parent
    return parent is hub and not type(found).__module__.startswith("gevent.threadpool")


def describe(found: greenlet) -> str:
    """What it runs: a function, and the class of the object whose method it is."""
    run = _run_of(found)
    if run is None:
        return "call worker" if type(found) is greenlet else type(found).__name__
    owner = getattr(run, "__self__", None)
    name = getattr(run, "__qualname__", repr(type(run).__name__))
    module = type(owner).__module__ if owner is not None else getattr(run, "__module__", "")
    return f"{module.removeprefix('kuasar_agent.')}.{name}"


def belongings(found: greenlet) -> Iterator[Any]:
    """What it works with: its function's object, its arguments, and what its frames hold."""
    run = _run_of(found)
    if run is not None:
        yield getattr(run, "__self__", None)
    yield from getattr(found, "args", None) or ()
    yield from (getattr(found, "kwargs", None) or {}).values()
    for frame in frames(found):
        yield from _locals(frame)


def frames(found: greenlet) -> Iterator[FrameType]:
    """From the innermost outwards."""
    frame = found.gr_frame
    if frame is None and found is getcurrent():
        frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def stack(frame: FrameType | None) -> list[str]:
    """`file:line function` of each frame, the innermost first, at most `DEPTH`."""
    lines: list[str] = []
    while frame is not None and len(lines) < DEPTH:
        code = frame.f_code
        lines.append(f"{_short(code.co_filename)}:{frame.f_lineno} {code.co_qualname}")
        frame = frame.f_back
    return lines


def thread_stacks() -> dict[str, list[str]]:
    """The stacks of all other threads by name."""
    me = threading.get_ident()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        f"{names.get(ident, 'native')}-{ident & 0xFFFF:x}": stack(frame)
        for ident, frame in sys._current_frames().items()
        if ident != me
    }


def _run_of(found: greenlet) -> Any:
    """What it was made to run, where that can still be told."""
    return getattr(found, "_run", None)


def _locals(frame: FrameType) -> list[Any]:
    if not frame.f_code.co_flags & 0x1:  # CO_OPTIMIZED: the others' are the module's own dict
        return []
    # The snapshot stays with the frame and would keep what the function drops later.
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
