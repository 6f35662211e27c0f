"""The server's side of a connection, without IO."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any
from hypothesis import given
from hypothesis import strategies as st

from kuasar_agent.ttrpc.connection import RequestReceived, ServerConnection
from kuasar_agent.ttrpc.envelope_pb2 import Request, Response
from kuasar_agent.ttrpc.frames import (
    DATA,
    HEADER,
    MAX_PAYLOAD,
    REQUEST,
    RESPONSE,
    FrameReader,
    encode,
)
from kuasar_agent.ttrpc.status import Code, NotFound, StatusError, Unknown

ODD = "StreamID must be odd for client initiated streams"
REUSED = "StreamID cannot be re-used and must increment"
INACTIVE = "StreamID is no longer active"
OVERSIZE = f"message length {MAX_PAYLOAD + 1} exceed maximum message size of {MAX_PAYLOAD}"

CONNECT = bytes.fromhex("00000022 00000001 01 00") + (
    b"\x0a\x17containerd.task.v2.Task\x12\x07Connect"
)


def request(stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    envelope = Request(service="s", method="M", payload=payload)
    return encode(stream, REQUEST, flags, envelope.SerializeToString())


def answers(core: ServerConnection) -> list[tuple[int, int, str]]:
    """Stream, code and message of what the core wants to send."""
    found = []
    for frame in FrameReader().feed(core.to_send()):
        assert frame.type == RESPONSE
        assert frame.length == len(frame.payload) <= MAX_PAYLOAD
        status = Response.FromString(frame.payload).status
        found.append((frame.stream, status.code, status.message))
    return found


def streams(events: list[RequestReceived]) -> list[int]:
    return [event.stream for event in events]


def test_a_golden_request_is_received_whole_and_byte_by_byte() -> None:
    expected = RequestReceived(1, Request(service="containerd.task.v2.Task", method="Connect"))
    assert ServerConnection().receive(CONNECT) == [expected]
    core = ServerConnection()
    events = [core.receive(CONNECT[i : i + 1]) for i in range(len(CONNECT))]
    assert events == [[]] * (len(CONNECT) - 1) + [[expected]]
    assert core.to_send() == b""


@pytest.mark.parametrize(
    ("payload", "wire"),
    [
        (b"\x08\x02", "00000004 00000001 02 00 12020802"),
        (b"", "00000000 00000001 02 00"),
    ],
)
def test_golden_responses(payload: bytes, wire: str) -> None:
    core = ServerConnection()
    core.receive(CONNECT)
    core.respond(1, payload)
    assert core.to_send() == bytes.fromhex(wire)
    assert core.to_send() == b""
    assert core.active == set()


def test_golden_error() -> None:
    core = ServerConnection()
    core.receive(CONNECT)
    core.fail(1, Unknown("boom"))
    assert core.to_send() == bytes.fromhex("0000000a 00000001 02 00 0a080802 1204 626f6f6d")
    assert core.active == set()


def test_glued_requests_are_both_received() -> None:
    assert streams(ServerConnection().receive(request(1) + request(3))) == [1, 3]


@pytest.mark.parametrize("stream", [0, 2, 0xFFFFFFFE])
@pytest.mark.parametrize("kind", [REQUEST, DATA])
def test_an_even_id_is_refused_on_its_own_id(stream: int, kind: int) -> None:
    core = ServerConnection()
    assert core.receive(encode(stream, kind, 0, b"")) == []
    assert answers(core) == [(stream, Code.INVALID_ARGUMENT, ODD)]
    assert streams(core.receive(request(1))) == [1]


@pytest.mark.parametrize("stream", [5, 3])
@pytest.mark.parametrize("answered", [True, False])
def test_an_id_not_above_the_last_is_refused_and_a_higher_one_served(
    stream: int, answered: bool
) -> None:
    core = ServerConnection()
    core.receive(request(5))
    if answered:
        core.respond(5, b"")
        core.to_send()
    assert core.receive(request(stream)) == []
    assert answers(core) == [(stream, Code.INVALID_ARGUMENT, REUSED)]
    assert streams(core.receive(request(7))) == [7]


@pytest.mark.parametrize("stream", [99, 0xFFFFFFFF])
def test_the_first_id_may_be_any_odd_one(stream: int) -> None:
    assert streams(ServerConnection().receive(request(stream))) == [stream]


def test_without_strict_ids_swapped_ones_are_served_but_never_an_open_one() -> None:
    core = ServerConnection(strict_ids=False)
    assert streams(core.receive(request(3) + request(1) + request(1) + request(3))) == [3, 1]
    assert answers(core) == [(i, Code.INVALID_ARGUMENT, REUSED) for i in (1, 3)]


def test_a_bad_envelope_is_refused_and_uses_up_its_id() -> None:
    core = ServerConnection()
    assert core.receive(encode(1, REQUEST, 0, b"\xff\xff\xff")) == []
    ((stream, code, message),) = answers(core)
    assert (stream, code) == (1, Code.INVALID_ARGUMENT)
    assert message.startswith("unmarshal request error: ")
    assert core.receive(request(1)) == []
    assert answers(core) == [(1, Code.INVALID_ARGUMENT, REUSED)]


def test_an_empty_envelope_is_a_request() -> None:
    assert ServerConnection().receive(encode(1, REQUEST, 0, b"")) == [RequestReceived(1, Request())]


def test_unknown_envelope_fields_are_ignored() -> None:
    (event,) = ServerConnection().receive(encode(1, REQUEST, 0, b"\x0a\x01s\xa2\x06\x01x"))
    assert event.request.service == "s"


@pytest.mark.parametrize("flags", [0xF8, 0xFF])
def test_flags_of_a_request_are_ignored(flags: int) -> None:
    assert streams(ServerConnection().receive(request(1, flags=flags))) == [1]


@pytest.mark.parametrize("kind", [0, RESPONSE, 4, 255])
def test_types_that_no_client_sends_are_consumed_without_an_answer(kind: int) -> None:
    core = ServerConnection()
    wire = encode(1, kind, 0, b"payload") + encode(2, kind, 0, b"") + request(1)
    assert streams(core.receive(wire)) == [1]
    assert core.to_send() == b""


@pytest.mark.parametrize("kind", [REQUEST, DATA])
def test_an_oversize_frame_is_answered_at_its_header_and_the_next_one_served(kind: int) -> None:
    core = ServerConnection()
    assert core.receive(HEADER.pack(MAX_PAYLOAD + 1, 1, kind, 0)) == []
    assert answers(core) == [(1, Code.RESOURCE_EXHAUSTED, OVERSIZE)]
    assert streams(core.receive(bytes(MAX_PAYLOAD + 1) + request(3))) == [3]
    assert core.to_send() == b""


def test_an_oversize_frame_for_an_open_call_is_its_only_answer() -> None:
    core = ServerConnection()
    core.receive(request(1))
    core.receive(HEADER.pack(MAX_PAYLOAD + 1, 1, DATA, 0))
    core.respond(1, b"late")
    core.fail(1, NotFound("late"))
    assert answers(core) == [(1, Code.RESOURCE_EXHAUSTED, OVERSIZE)]


def test_data_for_an_open_unary_call_is_dropped_and_the_call_completes() -> None:
    core = ServerConnection()
    core.receive(request(1))
    assert core.receive(encode(1, DATA, 0, b"x")) == []
    core.respond(1, b"")
    assert answers(core) == [(1, Code.OK, "")]


def test_data_for_a_finished_or_unknown_call_is_refused_each_time() -> None:
    core = ServerConnection()
    core.receive(request(1))
    core.respond(1, b"")
    core.to_send()
    core.receive(encode(1, DATA, 0, b"x") * 2 + encode(9, DATA, 0, b""))
    assert answers(core) == [(i, Code.INVALID_ARGUMENT, INACTIVE) for i in (1, 1, 9)]


def test_a_request_of_exactly_the_limit_is_received_and_a_larger_reply_fails() -> None:
    core = ServerConnection()
    # Service and method take 6 bytes, the payload's tag and length 5.
    payload = bytes(MAX_PAYLOAD - 11)
    wire = request(1, payload)
    assert len(wire) == HEADER.size + MAX_PAYLOAD
    (event,) = core.receive(wire)
    assert event.request.payload == payload
    core.respond(1, bytes(MAX_PAYLOAD))
    ((stream, code, message),) = answers(core)
    assert (stream, code) == (1, Code.RESOURCE_EXHAUSTED)
    assert message.endswith(f"exceed maximum message size of {MAX_PAYLOAD}")


@pytest.mark.parametrize("late", ["respond", "fail"])
def test_a_call_is_answered_once(late: str) -> None:
    core = ServerConnection()
    core.receive(request(1))
    core.fail(1, NotFound("first"))
    if late == "respond":
        core.respond(1, b"second")
    else:
        core.fail(1, NotFound("second"))
    assert answers(core) == [(1, Code.NOT_FOUND, "first")]


def test_a_status_keeps_its_code_text_and_details() -> None:
    core = ServerConnection()
    core.receive(request(1))
    detail = Any(type_url="a/b", value=b"\x00\xff")
    core.fail(1, StatusError.from_code(77, "text", [detail]))
    (frame,) = FrameReader().feed(core.to_send())
    status = Response.FromString(frame.payload).status
    assert (status.code, status.message, list(status.details)) == (77, "text", [detail])


def test_a_status_text_too_long_for_a_frame_leaves_the_code() -> None:
    core = ServerConnection()
    core.receive(request(1))
    core.fail(1, NotFound("x" * MAX_PAYLOAD))
    assert answers(core) == [(1, Code.NOT_FOUND, "")]


def test_a_status_text_that_is_no_unicode_is_sent_escaped() -> None:
    core = ServerConnection()
    core.receive(request(1))
    core.fail(1, NotFound("no file \udcff"))
    assert answers(core) == [(1, Code.NOT_FOUND, "no file \\udcff")]


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_garbage_never_raises(chunks: list[bytes]) -> None:
    core = ServerConnection()
    for chunk in chunks:
        core.receive(chunk)
    answers(core)


hostile = st.builds(
    encode,
    st.integers(0, 9) | st.integers(0, 0xFFFFFFFF),
    st.integers(0, 5),
    st.integers(0, 255),
    st.binary(max_size=30),
)


@given(st.lists(hostile, max_size=30), st.booleans())
def test_hostile_frames_are_served_or_answered_and_state_is_bounded_by_open_calls(
    wires: list[bytes], strict: bool
) -> None:
    whole = b"".join(wires)
    core, bytewise = ServerConnection(strict_ids=strict), ServerConnection(strict_ids=strict)
    events = core.receive(whole)
    split = [e for i in range(len(whole)) for e in bytewise.receive(whole[i : i + 1])]
    assert split == events
    assert core.active == set(streams(events))
    assert len(core.active) == len(events)
    refused = answers(core)
    assert answers(bytewise) == refused
    assert all(code for _, code, _ in refused)
    for event in events:
        core.respond(event.stream, b"")
    assert core.active == set()
    assert answers(core) == [(event.stream, Code.OK, "") for event in events]
