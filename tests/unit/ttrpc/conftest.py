"""A server and a client of the echo service, live or as bare cores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kuasar_agent.ttrpc import Client, Server, connect, listen
from tests.support.ttrpc.echo import SERVICE, Echo
from tests.support.ttrpc.live import raw
from tests.support.ttrpc.wire import CoreWire, SocketWire, Wire


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/ttrpc.sock"


@pytest.fixture
def server(echo: Echo, address: str) -> Iterator[Server]:
    server = Server()
    server.register(SERVICE, echo, partial=True)
    server.start(listen(address))
    yield server
    echo.release.set()
    server.close()


@pytest.fixture
def client(server: Server, address: str) -> Iterator[Client]:
    with connect(address) as client:
        yield client


@pytest.fixture
def live(server: Server, address: str, echo: Echo) -> Iterator[SocketWire]:
    """A raw socket to the live server."""
    with raw(address) as sock:
        yield SocketWire(sock, echo)


@pytest.fixture(params=["core", "core, byte by byte", "live"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Every way to reach a server."""
    kind, _, bytewise = request.param.partition(", ")
    if kind == "core":
        yield CoreWire(bytewise=bool(bytewise))
    else:
        request.getfixturevalue("server")
        echo: Echo = request.getfixturevalue("echo")
        with raw(request.getfixturevalue("address")) as sock:
            yield SocketWire(sock, echo)
