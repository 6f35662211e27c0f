"""What belongs to the living: everything that can be reached from the agent.

A descriptor that nothing reachable holds is a leak, and so is a greenlet that works on nothing
reachable. The walk is the garbage collector's own, without what would lead everywhere: modules,
classes, the hub. An object holds a descriptor when it is a socket, a file or a watcher, or has an
attribute whose name ends in `fd` or `fds`, or is `master`.
"""

from __future__ import annotations

import gc
import io
import socket as stdlib_socket
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any, TypeVar

from gevent.hub import Hub
from gevent.socket import socket
from greenlet import greenlet

from kuasar_agent.observe.greenlets import all_greenlets, belongings

T = TypeVar("T")

_DEAD_ENDS = (type, ModuleType, CodeType, FrameType, Hub, str, bytes, int, float, bytearray)


class Reachable:
    """What was reached, and what remains."""

    def __init__(self, roots: Iterable[object]) -> None:
        self.fds: set[int] = set()
        self.unreached: list[greenlet] = []
        """Greenlets that work on nothing reachable."""
        self._seen: dict[int, object] = {}
        self._walk(list(roots))
        self._adopt(all_greenlets())

    def __contains__(self, thing: object) -> bool:
        return id(thing) in self._seen

    def instances(self, kind: type[T]) -> list[T]:
        """What was reached of a class."""
        return [thing for thing in self._seen.values() if isinstance(thing, kind)]

    def _adopt(self, greenlets: list[greenlet]) -> None:
        """Reachable greenlets through what they work on, until that adds no more."""
        left = [found for found in greenlets if found not in self]
        while True:
            rest = []
            for found in left:
                if found in self or any(map(self._is_known, belongings(found))):
                    self._walk([found])
                else:
                    rest.append(found)
            if len(rest) == len(left):
                break
            left = rest
        self.unreached = left

    def _is_known(self, thing: object) -> bool:
        """Whether it is one of the agent's own objects; that others are shared proves nothing."""
        return thing in self and type(thing).__module__.startswith("kuasar_agent.")

    def _walk(self, found: list[object]) -> None:
        while found:
            thing = found.pop()
            if id(thing) in self._seen or isinstance(thing, _DEAD_ENDS):
                continue
            self._seen[id(thing)] = thing
            self.fds.update(_fds_of(thing))
            found += _next(thing)


def _next(thing: object) -> list[Any]:
    if isinstance(thing, (FunctionType, BuiltinFunctionType)):
        closure = getattr(thing, "__closure__", None) or ()
        owner = getattr(thing, "__self__", None)
        return [*closure, *([] if owner is None else [owner])]
    if isinstance(thing, greenlet):
        return [*belongings(thing), *gc.get_referents(thing)]
    return gc.get_referents(thing)


def _fds_of(thing: object) -> Iterator[int]:
    if isinstance(thing, (stdlib_socket.socket, socket, io.IOBase)):
        try:
            yield thing.fileno()
        except (OSError, ValueError):
            return  # closed, or a file in memory
        return
    try:
        names = getattr(thing, "__dict__", None)
    except OSError:
        return  # what gevent puts in a closed socket's place fails at any attribute
    if isinstance(names, dict):
        for name, value in names.items():
            if isinstance(name, str) and (name.endswith(("fd", "fds")) or name == "master"):
                yield from _numbers(value)
    elif hasattr(type(thing), "fd"):
        yield from _numbers(getattr(thing, "fd", None))


def _numbers(value: object) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, (list, tuple, set)):
        yield from (number for number in value if isinstance(number, int))
