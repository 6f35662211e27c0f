"""Servers with options of their own, and waiting for what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import gevent
from gevent import socket as gsocket

from kuasar_agent.ttrpc import Server, listen
from tests.support.ttrpc.echo import SERVICE, Echo
from tests.support.ttrpc.wire import PATIENCE


def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds; fails when it never does."""
    end = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < end
        gevent.sleep(0.001)


@contextmanager
def serving(address: str, echo: Echo, **options: Any) -> Iterator[Server]:
    """A server with options of its own."""
    server = Server(**options)
    server.register(SERVICE, echo, partial=True)
    server.start(listen(address))
    try:
        yield server
    finally:
        echo.release.set()
        server.close()


def raw(address: str) -> gsocket.socket:
    """Return a socket connected to the server."""
    sock = gsocket.socket(gsocket.AF_UNIX, gsocket.SOCK_STREAM)
    sock.connect(address.removeprefix("unix://"))
    return sock
