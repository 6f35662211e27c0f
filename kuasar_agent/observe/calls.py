"""Counts and durations of calls; two dictionary updates around each call."""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter
from typing import Any

from greenlet import GreenletExit

from kuasar_agent.log import get_logger
from kuasar_agent.ttrpc.call import Proceed
from kuasar_agent.ttrpc.context import Context
from kuasar_agent.ttrpc.status import Code, StatusError

log = get_logger(__name__)

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds; one more bucket counts the longer calls."""


class Latency:
    """The durations of one method's calls, in buckets."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class Calls:
    """An interceptor that counts calls by method and status code, and times them.

    A call that reaches no handler is not counted: its service or method is unknown, or its message
    is malformed.
    """

    def __init__(self) -> None:
        self.ended: dict[tuple[str, int], int] = {}
        self.latency: dict[str, Latency] = {}
        self.running = 0

    def __call__(self, ctx: Context, request: Any, proceed: Proceed) -> Any:
        begun = perf_counter()
        code = int(Code.OK)
        self.running += 1
        try:
            return proceed(ctx, request)
        except BaseException as error:
            code = code_of(error)
            raise
        finally:
            self.running -= 1
            method = ctx.method
            key = method, code
            self.ended[key] = self.ended.get(key, 0) + 1
            latency = self.latency.get(method)
            if latency is None:
                latency = self.latency[method] = Latency()
            latency.add(perf_counter() - begun)


def code_of(error: BaseException) -> int:
    """Return the status code that is sent for a handler's exception."""
    if isinstance(error, StatusError):
        return int(error.code)
    return int(Code.CANCELLED if isinstance(error, GreenletExit) else Code.UNKNOWN)


def log_calls(ctx: Context, request: Any, proceed: Proceed) -> Any:
    """Log a call's name and ids at level trace; the rest of it may hold secrets."""
    container = getattr(request, "id", "")
    fields = {"id": container, "exec": getattr(request, "exec_id", "")} if container else {}
    log.trace("call", method=ctx.method, **fields)
    begun = perf_counter()
    code = int(Code.OK)
    try:
        return proceed(ctx, request)
    except BaseException as error:
        code = code_of(error)
        raise
    finally:
        taken = f"{(perf_counter() - begun) * 1000:.3f}"
        log.trace("call ended", method=ctx.method, code=code, ms=taken, **fields)
