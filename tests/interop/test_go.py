"""99: Debian's Go ttrpc 1.1.1 on the other end, both ways round. It has unary calls only."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.hub import get_hub
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from kuasar_agent.ttrpc import (
    Client,
    Code,
    ConnectionClosed,
    Context,
    DeadlineExceeded,
    NotFound,
    ResourceExhausted,
    StatusError,
    Stub,
    Unimplemented,
    connect,
    same_user,
)
from tests.support.go_build import go_program
from tests.support.ttrpc.echo import SERVICE, Echo
from tests.support.ttrpc.live import serving, until
from tests.support.ttrpc.wire import LIMIT, PATIENCE
from tests.support.ttrpc_servers import running_go_server

LARGE = LIMIT - 64
"""A value that fills a frame but for its envelope, as the Go client sends it."""


# Our client, Go's server


@pytest.fixture
def go_server(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with running_go_server(tmp_path / "sock") as process:
        yield process


@pytest.fixture
def client(go_server: object, tmp_path: Path) -> Iterator[Client]:
    with connect(f"unix://{tmp_path}/sock", PATIENCE) as client:
        yield client


@pytest.fixture
def stub(client: Client) -> Stub:
    return client.stub(SERVICE)


@pytest.mark.parametrize("value", ["hi", "", "x" * LARGE], ids=["some", "empty", "large"])
def test_99_go_server_echoes(stub: Stub, value: str) -> None:
    assert stub.echo(StringValue(value=value), timeout=PATIENCE).value == value


def test_99_go_server_s_empty_message_is_one(stub: Stub) -> None:
    assert stub.nothing(Empty(), timeout=PATIENCE) == Empty()


def test_99_go_server_s_errors_arrive_with_code_and_words(stub: Stub) -> None:
    with pytest.raises(NotFound, match=r"^no such thing$"):
        stub.throw(StringValue(value="status"))
    with pytest.raises(StatusError, match=r"^plain words$") as raised:
        stub.throw(StringValue(value="plain"))
    assert raised.value.code == Code.UNKNOWN


def test_99_go_server_s_unknown_service_and_method_are_12(client: Client, stub: Stub) -> None:
    with pytest.raises(Unimplemented, match=r"^method Missing$"):
        stub.missing(StringValue())
    with pytest.raises(Unimplemented, match=r"^service no\.Such$"):
        client.call("/no.Such/Method", StringValue(), reply_type=StringValue)


def test_99_go_server_sees_our_deadline_and_metadata(stub: Stub) -> None:
    metadata = [("Key", "one"), ("other", "x"), ("KEY", "two")]
    answer = stub.describe(StringValue(value="key"), timeout=3_600_000, metadata=metadata)
    assert answer.value == "deadline=1000 values=one,two"
    assert stub.describe(StringValue(value="key")).value == "deadline=none values="


def test_99_go_server_s_overrun_is_4_and_the_connection_is_of_use(stub: Stub) -> None:
    with pytest.raises(DeadlineExceeded, match=r"^context deadline exceeded$"):
        stub.wait(StringValue(), timeout=0.1)
    assert stub.echo(StringValue(value="still here"), timeout=PATIENCE).value == "still here"


def test_99_oversize_request_is_not_sent_to_the_go_server(stub: Stub) -> None:
    with pytest.raises(ResourceExhausted, match=r"^message length \d+ exceed maximum"):
        stub.echo(StringValue(value="x" * LIMIT))
    assert stub.echo(StringValue(value="still here")).value == "still here"


def test_99_oversize_reply_of_the_go_server_fails_its_own_call_with_8(stub: Stub) -> None:
    waiting = gevent.spawn(stub.wait, StringValue(), timeout=PATIENCE)
    gevent.sleep(0)
    with pytest.raises(ResourceExhausted, match=r"^message length \d+ exceed maximum"):
        stub.large(Int64Value(value=LIMIT))
    assert len(stub.large(Int64Value(value=LARGE)).value) == LARGE
    assert not waiting.ready()
    waiting.kill()


def test_99_go_server_answers_a_thousand_calls_at_once(stub: Stub) -> None:
    calls = [gevent.spawn(stub.echo, StringValue(value=str(each))) for each in range(1000)]
    values = [call.get(timeout=PATIENCE).value for call in calls]
    assert values == [str(each) for each in range(1000)]


def test_99_go_server_that_dies_fails_the_calls_in_progress(
    go_server: subprocess.Popen[str], client: Client
) -> None:
    waiting = gevent.spawn(client.stub(SERVICE).wait, StringValue())
    until(lambda: client.calls == 1)
    go_server.kill()
    with pytest.raises(ConnectionClosed, match=r"^ttrpc: closed$"):
        waiting.get(timeout=PATIENCE)


# Go's client, our server


class Handler(Echo):
    """What the Go server of these tests answers, and a method with too large a reply."""

    def throw(self, ctx: Context, request: StringValue) -> None:
        self.error = NotFound("no such thing")
        if request.value == "plain":
            self.error = RuntimeError("plain words")
        super().throw(ctx, request)

    def large(self, _ctx: Context, _request: Int64Value) -> BytesValue:
        return BytesValue(value=bytes(LIMIT))


Outcome = dict[str, Any]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What came of each call of the Go client, by the call's name."""
    path = tmp_path_factory.mktemp("go") / "sock"
    command = [str(go_program("client")), "probe", str(path)]
    with serving(f"unix://{path}", Handler(), authorize=same_user):
        # Waiting for it here would keep the server from running.
        output = get_hub().threadpool.apply(subprocess.check_output, (command,))
    found = map(json.loads, output.splitlines())
    return {each.pop("name"): each for each in found}


def ok(value: str, size: int | None = None) -> Outcome:
    size = len(value) if size is None else size
    return {"value": value, "size": size, "code": 0, "error": ""}


def failed(code: int, error: str) -> Outcome:
    return {"value": "", "size": 0, "code": code, "error": error}


TOO_LONG = "message length {} exceed maximum message size of 4194304"


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("echo", ok("hi")),
        ("empty", ok("")),
        ("empty message", ok("")),
        ("status", failed(Code.NOT_FOUND, "no such thing")),
        ("plain", failed(Code.UNKNOWN, "plain words")),
        ("unknown service", failed(Code.UNIMPLEMENTED, "service ttrpc.test.Nope")),
        ("unknown method", failed(Code.UNIMPLEMENTED, "method Nope")),
        (
            "no handler",
            failed(Code.UNIMPLEMENTED, "/ttrpc.test.Echo/Missing is not supported"),
        ),
        ("metadata", ok("deadline=none values=one,two")),
        ("deadline", ok("deadline=1000 values=")),
        ("overrun", failed(Code.DEADLINE_EXCEEDED, "context deadline exceeded")),
        ("after the overrun", ok("still here")),
        ("large", ok("", LARGE)),
        ("oversize", failed(Code.RESOURCE_EXHAUSTED, TOO_LONG.format((5 << 20) + 33))),
        ("oversize reply", failed(Code.RESOURCE_EXHAUSTED, TOO_LONG.format(LIMIT + 10))),
        ("after the oversize", ok("still here")),
    ],
)
def test_99_go_client_gets_from_our_server(
    outcomes: dict[str, Outcome], name: str, outcome: Outcome
) -> None:
    assert outcomes[name] == outcome


def test_99_go_client_made_no_other_calls(outcomes: dict[str, Outcome]) -> None:
    assert len(outcomes) == 16
