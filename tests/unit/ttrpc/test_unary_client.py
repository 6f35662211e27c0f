"""Unary calls of the client to a raw peer over a unix socket."""

from __future__ import annotations

import time
from pathlib import Path

import gevent
import pytest

from kuasar_agent.api.task_pb2 import StateRequest, StateResponse
from kuasar_agent.ttrpc import (
    Code,
    ConnectionClosed,
    DeadlineExceeded,
    Internal,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from kuasar_agent.ttrpc.envelope_pb2 import KeyValue
from kuasar_agent.ttrpc.frames import HEADER, MAX_PAYLOAD, RESPONSE, encode
from tests.unit.ttrpc.peers import METHODS, PATIENCE, SERVICE, TASK, raw_server

STATE = METHODS["State"]


def test_service_method_timeout_and_metadata_travel_separately(tmp_path: Path) -> None:
    with raw_server(tmp_path) as (client, peer):
        pairs = [("Ns", "1"), ("ns", "2")]
        call = gevent.spawn(
            client.call, STATE, StateRequest(id="c"), timeout=2, metadata=pairs, service="other.S"
        )
        stream, request = peer.request()
        assert (stream, request.service, request.method) == (1, "other.S", "State")
        assert 0 < request.timeout_nano <= 2 * 10**9
        assert list(request.metadata) == [KeyValue(key=k, value=v) for k, v in pairs]
        assert StateRequest.FromString(request.payload).id == "c"
        peer.respond(1, StateResponse(id="d").SerializeToString())
        assert call.get() == StateResponse(id="d")


def test_a_stub_names_its_service_and_sends_no_timeout_unasked(tmp_path: Path) -> None:
    with raw_server(tmp_path) as (client, peer):
        stub = client.stub(TASK)
        with pytest.raises(AttributeError, match="has no method nothing"):
            _ = stub.nothing
        call = gevent.spawn(stub.close_io, StateRequest())
        _, request = peer.request()
        assert (request.service, request.method) == (SERVICE, "CloseIO")
        assert request.timeout_nano == 0
        peer.respond(1)
        call.get()


def test_ids_of_concurrent_calls_grow_on_the_wire_and_answers_come_in_any_order(
    tmp_path: Path,
) -> None:
    with raw_server(tmp_path) as (client, peer):
        state = client.stub(TASK).state
        calls = [gevent.spawn(state, StateRequest(id=str(i))) for i in range(100)]
        requests = [peer.request() for _ in calls]
        assert [stream for stream, _ in requests] == list(range(1, 200, 2))
        for stream, request in reversed(requests):
            peer.respond(stream, request.payload)
        assert [call.get(timeout=PATIENCE).id for call in calls] == [str(i) for i in range(100)]


@pytest.mark.parametrize(
    "payload", [b"", b"\x0a\x00", b"\x0a\x06\x12\x04text"], ids=["nothing", "status", "text"]
)
def test_a_response_without_a_code_is_success(tmp_path: Path, payload: bytes) -> None:
    with raw_server(tmp_path) as (client, peer):
        call = gevent.spawn(client.call, STATE, StateRequest())
        peer.request()
        peer.send(encode(1, RESPONSE, 0, payload))
        assert call.get() == StateResponse()


def test_an_error_is_raised_its_payload_ignored_and_its_id_not_reused(tmp_path: Path) -> None:
    with raw_server(tmp_path) as (client, peer):
        for stream, code, kind in ((1, Code.NOT_FOUND, NotFound), (3, 14, Unavailable)):
            call = gevent.spawn(_outcome, client.call, STATE, StateRequest())
            assert peer.request()[0] == stream
            peer.respond(stream, b"\xff", status={"code": code, "message": "text"})
            error = call.get()
            assert type(error) is kind
            assert str(error) == "text"


def test_a_reply_that_does_not_parse_is_internal_and_the_connection_lives(tmp_path: Path) -> None:
    with raw_server(tmp_path) as (client, peer):
        for stream, wire in ((1, b"\x12\x01\xff"), (3, b"\xff")):
            call = gevent.spawn(_outcome, client.call, STATE, StateRequest())
            assert peer.request()[0] == stream
            peer.send(encode(stream, RESPONSE, 0, wire))
            error = call.get()
            assert isinstance(error, Internal)
            assert "unmarshal" in str(error)


def test_a_request_too_large_fails_here_and_writes_nothing(tmp_path: Path) -> None:
    with raw_server(tmp_path) as (client, peer):
        with pytest.raises(ResourceExhausted):
            client.call(STATE, StateRequest(id="x" * MAX_PAYLOAD))
        call = gevent.spawn(client.call, STATE, StateRequest())
        assert peer.request()[0] == 1
        peer.respond(1)
        call.get()


def test_frames_of_no_open_call_are_ignored(tmp_path: Path) -> None:
    with raw_server(tmp_path) as (client, peer):
        call = gevent.spawn(client.call, STATE, StateRequest())
        peer.request()
        for stream in (0, 2, 3, 99):
            peer.respond(stream, b"\xff")
        peer.respond(1, StateResponse(id="c").SerializeToString())
        assert call.get() == StateResponse(id="c")


def test_an_oversize_response_fails_its_call_and_no_other(tmp_path: Path) -> None:
    with raw_server(tmp_path) as (client, peer):
        calls = [gevent.spawn(_outcome, client.call, STATE, StateRequest()) for _ in range(2)]
        for _ in calls:
            peer.request()
        peer.send(HEADER.pack(MAX_PAYLOAD + 1, 1, RESPONSE, 0) + bytes(MAX_PAYLOAD + 1))
        peer.respond(3)
        assert isinstance(calls[0].get(), ResourceExhausted)
        assert calls[1].get() == StateResponse()


def test_no_answer_in_time_is_4_and_the_late_one_is_dropped(tmp_path: Path) -> None:
    with raw_server(tmp_path) as (client, peer):
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="context deadline exceeded"):
            client.call(STATE, StateRequest(), timeout=0.02)
        assert time.monotonic() - start >= 0.02
        assert client._waiting == {}
        assert peer.request()[0] == 1
        peer.respond(1, StateResponse(id="late").SerializeToString())
        call = gevent.spawn(client.call, STATE, StateRequest())
        assert peer.request()[0] == 3
        peer.respond(3)
        assert call.get() == StateResponse()


def test_a_timeout_of_the_callers_own_is_not_the_deadline(tmp_path: Path) -> None:
    with raw_server(tmp_path) as (client, _):
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
            client.call(STATE, StateRequest(), timeout=PATIENCE)
        assert client._waiting == {}


def test_when_the_server_closes_every_call_fails_and_later_ones_at_once(tmp_path: Path) -> None:
    with raw_server(tmp_path) as (client, peer):
        calls = [gevent.spawn(_outcome, client.call, STATE, StateRequest()) for _ in range(3)]
        for _ in calls:
            peer.request()
        peer.socket.close()
        for call in calls:
            error = call.get()
            assert isinstance(error, ConnectionClosed)
            assert str(error) == "ttrpc: closed"
        with pytest.raises(ConnectionClosed):
            client.call(STATE, StateRequest())


def test_close_fails_the_calls_in_flight_and_may_be_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with raw_server(tmp_path) as (client, peer):
        call = gevent.spawn(_outcome, client.call, STATE, StateRequest())
        peer.request()
        client.close()
        client.close()
        assert isinstance(call.get(), ConnectionClosed)
        with pytest.raises(ConnectionClosed):
            client.call(STATE, StateRequest())
        assert peer.at_end()
    assert capsys.readouterr().err == ""


def test_after_the_last_id_a_call_fails_at_once(tmp_path: Path) -> None:
    with raw_server(tmp_path) as (client, peer):
        client._core._next = 0xFFFFFFFF
        call = gevent.spawn(client.call, STATE, StateRequest())
        assert peer.request()[0] == 0xFFFFFFFF
        peer.respond(0xFFFFFFFF)
        call.get()
        with pytest.raises(ConnectionClosed):
            client.call(STATE, StateRequest())


def _outcome(call: object, *args: object) -> object:
    """What a call returns or raises."""
    assert callable(call)
    try:
        return call(*args)
    except Exception as error:
        return error
