"""The client's side of a connection, without IO."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any
from hypothesis import given
from hypothesis import strategies as st

from kuasar_agent.ttrpc.connection import ClientConnection, ResponseReceived
from kuasar_agent.ttrpc.envelope_pb2 import KeyValue, Request, Response
from kuasar_agent.ttrpc.frames import (
    DATA,
    HEADER,
    MAX_PAYLOAD,
    REQUEST,
    RESPONSE,
    FrameReader,
    encode,
)
from kuasar_agent.ttrpc.status import Code, ResourceExhausted, StatusError, Unavailable


def opened(count: int = 1) -> ClientConnection:
    core = ClientConnection()
    for _ in range(count):
        core.call("s", "M", b"")
    return core


def answer(wire: bytes) -> ResponseReceived:
    """What a call with id 1 gets from some bytes, whole or one by one."""
    (event,) = opened().receive(wire)
    core = opened()
    (same,) = [e for i in range(len(wire)) for e in core.receive(wire[i : i + 1])]
    assert same[:2] == event[:2]
    assert type(same.error) is type(event.error)
    assert str(same.error) == str(event.error)
    return event


def failure(wire: bytes) -> StatusError:
    event = answer(wire)
    assert event.payload == b""
    assert event.error is not None
    return event.error


def test_golden_request() -> None:
    stream, wire = ClientConnection().call("containerd.task.v2.Task", "Connect", b"")
    assert stream == 1
    assert wire == bytes.fromhex("00000022 00000001 01 00") + (
        b"\x0a\x17containerd.task.v2.Task\x12\x07Connect"
    )


@pytest.mark.parametrize(
    ("wire", "payload"),
    [
        ("00000000 00000001 02 00", b""),
        ("00000002 00000001 02 00 0a00", b""),
        ("00000004 00000001 02 00 12020802", b"\x08\x02"),
    ],
)
def test_golden_responses_are_success(wire: str, payload: bytes) -> None:
    assert answer(bytes.fromhex(wire)) == ResponseReceived(1, payload, None)


def test_golden_error() -> None:
    error = failure(bytes.fromhex("0000000a 00000001 02 00 0a080802 1204 626f6f6d"))
    assert (error.code, error.message) == (Code.UNKNOWN, "boom")


def test_service_method_time_and_metadata_travel_in_the_envelope() -> None:
    _, wire = ClientConnection().call("a.B", "C", b"p", 5, [("k", "1"), ("k", "2")])
    (frame,) = FrameReader().feed(wire)
    assert (frame.stream, frame.type, frame.flags) == (1, REQUEST, 0)
    assert Request.FromString(frame.payload) == Request(
        service="a.B",
        method="C",
        payload=b"p",
        timeout_nano=5,
        metadata=[KeyValue(key="k", value="1"), KeyValue(key="k", value="2")],
    )


def test_ids_are_odd_growing_and_not_reused_after_a_failure() -> None:
    core = ClientConnection()
    assert [core.call("s", "M", b"")[0] for _ in range(3)] == [1, 3, 5]
    core.receive(encode(5, RESPONSE, 0, b"\x0a\x02\x08\x02"))
    core.forget(3)
    assert core.call("s", "M", b"")[0] == 7


def test_after_the_last_id_the_connection_is_exhausted() -> None:
    core = ClientConnection()
    core._next = 0xFFFFFFFF
    assert not core.exhausted
    assert core.call("s", "M", b"")[0] == 0xFFFFFFFF
    assert core.exhausted


def test_a_request_too_large_raises_and_takes_no_id() -> None:
    core = ClientConnection()
    with pytest.raises(ResourceExhausted, match="exceed maximum message size of 4194304"):
        core.call("s", "M", bytes(MAX_PAYLOAD))
    assert core.active == set()
    stream, wire = core.call("s", "M", bytes(MAX_PAYLOAD - 11))
    assert (stream, len(wire), wire[0]) == (1, HEADER.size + MAX_PAYLOAD, 0)


def test_code_zero_with_a_text_is_success() -> None:
    response = Response(status={"code": 0, "message": "fine"}, payload=b"p")
    assert answer(encode(1, RESPONSE, 0, response.SerializeToString())).payload == b"p"


def test_an_error_keeps_code_text_and_details_and_its_payload_is_ignored() -> None:
    detail = Any(type_url="a/b", value=b"\x00\xff")
    response = Response(
        status={"code": 5, "message": "text", "details": [detail]}, payload=b"payload"
    )
    error = failure(encode(1, RESPONSE, 0, response.SerializeToString()))
    assert (error.code, error.message, error.details) == (Code.NOT_FOUND, "text", (detail,))


@pytest.mark.parametrize("code", [*Code, 17, 2**31 - 1, -1])
def test_every_code_of_the_wire_becomes_an_error_with_that_code(code: int) -> None:
    if code == Code.OK:
        return
    response = Response(status={"code": code, "message": "text"})
    error = failure(encode(1, RESPONSE, 0, response.SerializeToString()))
    assert (error.code, error.message) == (code, "text")


def test_unavailable_from_the_wire_is_not_the_end_of_the_connection() -> None:
    response = Response(status={"code": Code.UNAVAILABLE, "message": "text"})
    error = failure(encode(1, RESPONSE, 0, response.SerializeToString()))
    assert type(error) is Unavailable


def test_a_response_that_does_not_parse_is_an_internal_error() -> None:
    error = failure(encode(1, RESPONSE, 0, b"\xff\xff"))
    assert error.code == Code.INTERNAL
    assert error.message.startswith("unmarshal response error: ")


def test_an_oversize_response_fails_its_call_and_no_other() -> None:
    core = opened(2)
    (event,) = core.receive(HEADER.pack(MAX_PAYLOAD + 1, 1, RESPONSE, 0))
    assert event.stream == 1
    assert isinstance(event.error, ResourceExhausted)
    assert core.active == {3}
    after = core.receive(bytes(MAX_PAYLOAD + 1) + encode(3, RESPONSE, 0, b""))
    assert after == [ResponseReceived(3, b"", None)]


def test_data_for_a_unary_call_is_a_protocol_error() -> None:
    error = failure(encode(1, DATA, 0, b"x"))
    assert error.message == "received data from non-streaming server: protocol error"


@pytest.mark.parametrize("stream", [0, 2, 3, 0xFFFFFFFF])
def test_a_response_for_an_unknown_or_even_id_is_ignored(stream: int) -> None:
    core = opened()
    wire = encode(stream, RESPONSE, 0, b"\xff") + encode(1, RESPONSE, 0, b"")
    assert core.receive(wire) == [ResponseReceived(1, b"", None)]


@pytest.mark.parametrize("kind", [0, REQUEST, 4, 255])
def test_types_that_no_server_sends_are_ignored(kind: int) -> None:
    core = opened()
    assert core.receive(encode(1, kind, 0, b"x")) == []
    assert core.active == {1}


def test_a_late_or_second_response_is_dropped() -> None:
    core = opened(2)
    core.forget(1)
    assert core.receive(encode(1, RESPONSE, 0, b"")) == []
    assert len(core.receive(encode(3, RESPONSE, 0, b"") * 2)) == 1
    assert core.active == set()


hostile = st.builds(
    encode,
    st.integers(0, 9) | st.integers(0, 0xFFFFFFFF),
    st.integers(0, 5),
    st.integers(0, 255),
    st.binary(max_size=30),
)


@given(st.lists(hostile | st.binary(max_size=100), max_size=30))
def test_garbage_never_raises_and_ends_a_call_at_most_once(wires: list[bytes]) -> None:
    core = opened(4)
    events = [event for wire in wires for event in core.receive(wire)]
    ended = [event.stream for event in events]
    assert len(ended) == len(set(ended))
    assert core.active == {1, 3, 5, 7} - set(ended)
    assert len(core._reader._buffer) <= HEADER.size + MAX_PAYLOAD
