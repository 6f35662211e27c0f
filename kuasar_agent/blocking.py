"""Calls that may block in the kernel (files on the share, mounts), made in a thread."""

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
    """Call `function` in a thread of the hub's pool; return its result or raise its exception.

    Blocks: the greenlet.
    """
    with span(getattr(function, "__name__", "off_hub").lstrip("_")):
        return _apply(gevent.get_hub().threadpool, lambda: function(*args, **kwargs))


def in_own_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` as off_hub does, in a thread that ends afterwards.

    The function may change what belongs to a thread, such as its namespaces.

    Blocks: the greenlet.
    """
    # Imported late: the hub imports it only with the first call of off_hub, too.
    from gevent.threadpool import ThreadPool

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

    # Returned, not raised: the pool prints an exception that leaves the thread, even a handled one.
    error: BaseException | None = pool.apply(call)
    if error is not None:
        raise error
    return results[0]
