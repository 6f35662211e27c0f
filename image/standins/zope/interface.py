"""In the place of zope.interface: nothing here asks which interfaces an object has.

gevent describes its loop and its watchers with it, for readers. The real one would be a fifteenth
of the time that the agent takes to start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Interface:
    """The base of every interface."""


class Attribute:
    """An attribute that an interface describes."""

    def __init__(self, *_: object, **__: object) -> None:
        pass


def implementer(*_: type) -> Callable[[T], T]:
    """Leave the decorated class as it is."""
    return lambda implementation: implementation


def classImplements(*_: type) -> None:
    """Note nothing: see `implementer`."""
