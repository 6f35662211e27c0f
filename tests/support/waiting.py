"""Waiting for what no event announces."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import gevent

from tests.support.timeouts import IN_PROCESS

T = TypeVar("T")


def eventually(
    probe: Callable[[], T], accept: Callable[[T], bool], within: float = IN_PROCESS
) -> T:
    """Return the first result that `accept` takes, else the last one after `within` seconds."""
    deadline = time.monotonic() + within
    while not accept(result := probe()) and time.monotonic() < deadline:
        gevent.sleep(0.01)
    return result
