"""Server and client over real unix sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from kuasar_agent.ttrpc import Client, DeadlineExceeded, Server, Unimplemented, connect, listen
from tests.unit.ttrpc.echo import SERVICE, Echo


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def client(tmp_path: Path, echo: Echo) -> Iterator[Client]:
    address = f"unix://{tmp_path}/ttrpc.sock"
    server = Server()
    server.register(SERVICE, echo)
    server.start(listen(address))
    with connect(address) as client:
        yield client
    server.close()


def test_unary_call_gets_its_reply(client: Client) -> None:
    assert client.stub(SERVICE).echo(StringValue(value="hi")).value == "hi"


def test_missing_handler_is_unimplemented(client: Client) -> None:
    with pytest.raises(Unimplemented, match=r"^/ttrpc.test.Echo/Missing is not supported$"):
        client.stub(SERVICE).missing(StringValue())


def test_deadline_kills_a_cancellable_handler(client: Client, echo: Echo) -> None:
    with pytest.raises(DeadlineExceeded):
        client.stub(SERVICE).wait(StringValue(), timeout=0.05)
    assert echo.finished.get(timeout=5) == "wait"


def test_streams_of_each_kind(client: Client) -> None:
    stub = client.stub(SERVICE)
    assert [reply.value for reply in stub.count(Int64Value(value=3))] == [0, 1, 2]
    total = stub.sum()
    for number in range(4):
        total.send(Int64Value(value=number))
    assert total.close_and_recv().value == 6
    chat = stub.chat()
    chat.send(StringValue(value="a"))
    assert chat.recv().value == "a"
    chat.close_send()
    assert chat.recv() is None
