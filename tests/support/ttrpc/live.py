"""Servers with options, and waiting for a condition."""

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
    """Run the loop until the condition holds; fail after PATIENCE seconds."""
    end = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < end
        gevent.sleep(0.001)


@contextmanager
def serving(address: str, echo: Echo, **options: Any) -> Iterator[Server]:
    """Serve `echo` with these options of Server."""
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
