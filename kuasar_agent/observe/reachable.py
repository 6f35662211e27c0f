"""Everything that can be reached from the agent, for the leak report.

A descriptor that no reachable object owns is a leak, and so is a greenlet that works on no
reachable object. The walk follows the references of the garbage collector, except through objects
that lead everywhere: modules, classes, frames, the hub.

A socket, a file and an epoll own their `fileno()`. Every other owner is a class of the agent with
a method `descriptors`, see `DescriptorOwner`.
"""

from __future__ import annotations

import gc
import io
import select
import socket as stdlib_socket
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Protocol, TypeVar

from gevent.hub import Hub
from gevent.socket import socket
from greenlet import greenlet

from kuasar_agent.observe.greenlets import all_greenlets, belongings, is_a

T = TypeVar("T")

_DEAD_ENDS = (type, ModuleType, CodeType, FrameType, Hub, str, bytes, int, float, bytearray)
_FILES = (stdlib_socket.socket, socket, io.IOBase, select.epoll)
_OWN_PACKAGE = "kuasar_agent."


class DescriptorOwner(Protocol):
    """A class of the agent that keeps descriptors as numbers."""

    def descriptors(self) -> Iterable[int]:
        """Return the numbers of the open descriptors; -1 stands for a closed one."""
        ...


class Reachable:
    """The objects that were reached from some roots, and the greenlets that were not."""

    def __init__(self, roots: Iterable[object]) -> None:
        self.fds: set[int] = set()
        """Numbers of the descriptors that reachable objects own."""
        self.unreached: list[greenlet] = []
        """Greenlets that work on no reachable object."""
        self._seen: dict[int, object] = {}
        self._walk(list(roots))
        self._adopt(all_greenlets())

    def __contains__(self, thing: object) -> bool:
        return id(thing) in self._seen

    def instances(self, kind: type[T]) -> list[T]:
        """Return the reachable objects of a class."""
        return [thing for thing in self._seen.values() if is_a(thing, kind)]

    def _adopt(self, greenlets: list[greenlet]) -> None:
        """Walk greenlets that work on reachable objects, until no more are found."""
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
        """Return whether it is a reachable object of the agent's own classes.

        Objects of other classes, such as an interned string, are shared by unrelated greenlets.
        """
        return thing in self and _is_own(thing)

    def _walk(self, found: list[object]) -> None:
        while found:
            thing = found.pop()
            if id(thing) in self._seen or is_a(thing, *_DEAD_ENDS):
                continue
            self._seen[id(thing)] = thing
            self.fds.update(_fds_of(thing))
            found += _next(thing)


def _is_own(thing: object) -> bool:
    return type(thing).__module__.startswith(_OWN_PACKAGE)


def _next(thing: object) -> list[Any]:
    if is_a(thing, FunctionType, BuiltinFunctionType):
        closure = getattr(thing, "__closure__", None) or ()
        owner = getattr(thing, "__self__", None)
        return [*closure, *([] if owner is None else [owner])]
    if is_a(thing, greenlet):
        return [*belongings(thing), *gc.get_referents(thing)]
    return gc.get_referents(thing)


def _fds_of(thing: Any) -> Iterator[int]:
    if issubclass(type(thing), _FILES):
        try:
            yield thing.fileno()
        except (OSError, ValueError):
            return  # a closed file, or one in memory
    elif _is_own(thing) and hasattr(type(thing), "descriptors"):
        owner: DescriptorOwner = thing
        yield from owner.descriptors()
