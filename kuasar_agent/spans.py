"""Marks of the parts of a call for tracing; while tracing is off, a mark costs a comparison."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Open = Callable[[str], AbstractContextManager[object]]
"""Begins a span as a child of this greenlet's current one; it ends with the block."""

_NOTHING = nullcontext()
_open: Open | None = None


def trace_with(open: Open | None) -> None:
    """Open a span by `open` for every mark from now on; None turns the marks off."""
    global _open
    _open = open


def span(name: str) -> AbstractContextManager[object]:
    """Return a context manager that marks a block."""
    return _NOTHING if _open is None else _open(name)


def traced(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that marks every call of a function."""

    def mark(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def marked(*args: P.args, **kwargs: P.kwargs) -> T:
            if _open is None:
                return function(*args, **kwargs)
            with _open(name):
                return function(*args, **kwargs)

        return marked

    return mark
