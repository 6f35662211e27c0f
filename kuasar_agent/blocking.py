"""Calls that may block in the kernel (files on the share, mounts) run in the hub's thread pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import gevent

from kuasar_agent.spans import span

if TYPE_CHECKING:
    from gevent.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")


def off_hub(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread; other greenlets run meanwhile. Its exception is raised here."""
    with span(getattr(function, "__name__", "off_hub").lstrip("_")):
        return _apply(gevent.get_hub().threadpool, lambda: function(*args, **kwargs))


def in_own_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """The same in a thread that ends afterwards: what belongs to a thread, as its namespaces do,
    may be changed there."""
    from gevent.threadpool import ThreadPool  # the hub imports it with the first use, too

    pool = ThreadPool(1)
    try:
        return _apply(pool, lambda: function(*args, **kwargs))
    finally:
        pool.kill()


def _apply(pool: ThreadPool, function: Callable[[], T]) -> T:
    results: list[T] = []

    def call() -> BaseException | None:
        try:
            results.append(function())
        except BaseException as error:
            return error
        return None

    # An exception that leaves the thread is printed by the pool, even when somebody handles it.
    error: BaseException | None = pool.apply(call)
    if error is not None:
        raise error
    return results[0]
