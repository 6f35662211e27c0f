"""Calls that may block in the kernel (files on the share, mounts) run in the hub's thread pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gevent

from kuasar_agent.spans import span

P = ParamSpec("P")
T = TypeVar("T")


def off_hub(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread; other greenlets run meanwhile. Its exception is raised here."""
    results: list[T] = []

    def call() -> BaseException | None:
        try:
            results.append(function(*args, **kwargs))
        except BaseException as error:
            return error
        return None

    # An exception that leaves the thread is printed by the pool, even when somebody handles it.
    with span(getattr(function, "__name__", "off_hub")):
        error: BaseException | None = gevent.get_hub().threadpool.apply(call)
    if error is not None:
        raise error
    return results[0]
