"""What a client makes of a server's frames; the numbers are those of the conformance list."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from kuasar_agent.ttrpc.client_core import ClientCore
from kuasar_agent.ttrpc.envelope_pb2 import Request, Response, Status
from kuasar_agent.ttrpc.service import methods_of
from kuasar_agent.ttrpc.status import (
    Cancelled,
    ConnectionClosed,
    Internal,
    NotFound,
    ProtocolError,
    ResourceExhausted,
    StatusError,
    StreamClosed,
)
from tests.support.ttrpc.client_wire import Calls, CoreCalls, LiveCalls
from tests.support.ttrpc.echo import NAME, SERVICE
from tests.support.ttrpc.wire import (
    DATA,
    LIMIT,
    ND,
    RC,
    REQUEST,
    RESPONSE,
    RO,
    Frame,
    data,
    frame,
    only,
    reply,
    split,
)


@pytest.fixture(params=["core", "core, byte by byte", "live"])
def calls(request: pytest.FixtureRequest) -> Iterator[Calls]:
    kind, _, bytewise = request.param.partition(", ")
    if kind == "core":
        yield CoreCalls(bytewise=bool(bytewise))
    else:
        live = LiveCalls(bytewise=False)
        yield live
        live.client.close()
        live.lose()


def error(stream_id: int, code: int, text: str, payload: bytes = b"") -> bytes:
    envelope = Response(status=Status(code=code, message=text), payload=payload)
    return frame(stream_id, RESPONSE, 0, envelope.SerializeToString())


def test_11_every_frame_sent_is_at_most_the_limit(calls: Calls) -> None:
    result = calls.unary("x" * (LIMIT - 100))
    # Splitting asserts it for whatever is sent in these tests; this one comes close.
    assert LIMIT - 100 < len(only(calls).payload) <= LIMIT
    calls.send(reply(1, "ok"))
    assert result().value == "ok"


def test_21_ids_are_odd_in_order_and_never_repeat(calls: Calls) -> None:
    for _ in range(100):
        calls.unary()
    assert [sent.stream_id for sent in calls.receive(100)] == [*range(1, 200, 2)]


def test_22_id_of_a_failed_call_is_not_used_again(calls: Calls) -> None:
    result = calls.unary()
    calls.receive()
    calls.send(error(1, 5, "gone"))
    with pytest.raises(NotFound, match=r"^gone$"):
        result()
    calls.unary()
    assert only(calls).stream_id == 3


@pytest.mark.parametrize("payload", [b"", b"\x0a\x00"], ids=["as Go", "as Rust"])
def test_32_33_empty_response_is_success(calls: Calls, payload: bytes) -> None:
    result = calls.unary("hi")
    calls.send(frame(1, RESPONSE, 0, payload))
    assert result() == StringValue()


def test_34_response_with_code_0_and_a_message_is_success(calls: Calls) -> None:
    result = calls.unary()
    calls.send(error(1, 0, "fine", b"\x0a\x02ok"))
    assert result().value == "ok"


def test_35_error_response_discards_its_payload(calls: Calls) -> None:
    result = calls.unary()
    calls.send(error(1, 5, "gone", b"\x0a\x02ok"))
    with pytest.raises(NotFound, match=r"^gone$"):
        result()


def test_35_unlisted_code_keeps_its_number(calls: Calls) -> None:
    result = calls.unary()
    calls.send(error(1, 4711, "odd"))
    with pytest.raises(StatusError, match=r"^odd$") as raised:
        result()
    assert raised.value.code == 4711


@pytest.mark.parametrize("payload", [b"\xff\xff", b"\x12\x02\xff\xff"], ids=["envelope", "message"])
def test_36_garbage_response_is_internal_and_the_connection_lives(
    calls: Calls, payload: bytes
) -> None:
    result = calls.unary()
    calls.send(frame(1, RESPONSE, 0, payload))
    with pytest.raises(Internal):
        result()
    again = calls.unary()
    calls.send(reply(3, "ok"))
    assert again().value == "ok"


def test_37_oversize_request_fails_with_8_and_nothing_is_written(calls: Calls) -> None:
    result = calls.unary("x" * LIMIT)
    with pytest.raises(ResourceExhausted, match=r"^message length \d+ exceed maximum"):
        result()
    next_result = calls.unary("small")
    sent = only(calls)
    assert sent.stream_id == 1
    assert Request.FromString(sent.payload).method == "Echo"
    calls.send(reply(1, "ok"))
    assert next_result().value == "ok"


def test_38_response_for_an_unknown_id_is_ignored(calls: Calls) -> None:
    result = calls.unary()
    calls.send(reply(9, "whose?"), data(11, "whose?"), reply(1, "mine"))
    assert result().value == "mine"


def test_39_oversize_response_fails_only_its_call_with_8(calls: Calls) -> None:
    first, second = calls.unary(), calls.unary()
    calls.send(frame(1, RESPONSE, 0, bytes(LIMIT + 1)), reply(3, "fine"))
    with pytest.raises(ResourceExhausted, match=r"^message length 4194305 exceed maximum"):
        first()
    assert second().value == "fine"


def test_40_even_id_from_the_server_is_ignored(calls: Calls) -> None:
    result = calls.unary()
    calls.send(reply(2, "?"), data(4, "?"), frame(6, REQUEST), reply(1, "mine"))
    assert result().value == "mine"


def test_41_service_and_method_travel_apart_without_slashes(calls: Calls) -> None:
    calls.unary()
    envelope = Request.FromString(only(calls).payload)
    assert (envelope.service, envelope.method) == (NAME, "Echo")


def test_48_stream_without_a_timeout_sends_none(calls: Calls) -> None:
    _stream = calls.stream("Chat")
    assert Request.FromString(only(calls).payload).timeout_nano == 0


def test_71_server_s_close_is_the_end_after_all_messages(calls: Calls) -> None:
    stream = calls.stream("Count")
    calls.send(data(1), data(1), data(1, flags=RC | ND))
    assert [stream.recv(), stream.recv(), stream.recv()] == [Int64Value(), Int64Value(), None]
    assert stream.recv() is None


def test_72_close_with_a_message_is_the_message_then_the_end(calls: Calls) -> None:
    stream = calls.stream("Chat")
    calls.send(data(1, "last", flags=RC))
    assert stream.recv().value == "last"
    assert stream.recv() is None


def test_73_empty_ok_response_ends_a_duplex_without_a_message(calls: Calls) -> None:
    stream = calls.stream("Chat")
    calls.send(data(1, "a"), frame(1, RESPONSE))
    assert stream.recv().value == "a"
    assert stream.recv() is None


def test_73_ok_response_with_a_payload_is_a_last_message(calls: Calls) -> None:
    stream = calls.stream("Chat")
    calls.send(reply(1, "last"))
    assert stream.recv().value == "last"
    assert stream.recv() is None


def test_74_error_response_is_raised_after_the_messages_before_it(calls: Calls) -> None:
    stream = calls.stream("Chat")
    calls.send(data(1, "a"), data(1, "b"), error(1, 5, "no more"))
    assert [stream.recv().value, stream.recv().value] == ["a", "b"]
    for _ in range(2):
        with pytest.raises(NotFound, match=r"^no more$"):
            stream.recv()


def test_75_client_stream_is_answered_by_a_response(calls: Calls) -> None:
    stream = calls.stream("Sum")
    stream.close_send()
    calls.send(frame(1, RESPONSE, 0, bytes.fromhex("12020802")))
    assert stream.recv().value == 2


def test_75_data_on_a_client_stream_is_a_protocol_error(calls: Calls) -> None:
    stream = calls.stream("Sum")
    calls.send(data(1, "?"))
    text = r"^received data from non-streaming server: protocol error$"
    with pytest.raises(ProtocolError, match=text):
        stream.recv()
    result = calls.unary()
    calls.send(reply(3, "alive"))
    assert result().value == "alive"


def test_76_send_after_close_send_is_refused(calls: Calls) -> None:
    stream = calls.stream("Chat")
    stream.close_send()
    with pytest.raises(StreamClosed, match=r"^ttrpc: stream closed$"):
        stream.send("late")


def test_77_close_send_twice_is_one_frame(calls: Calls) -> None:
    stream = calls.stream("Chat")
    stream.close_send()
    stream.close_send()
    calls.unary()
    opened, closed, after = calls.receive(3)
    assert (opened.kind, closed, after.kind) == (REQUEST, Frame(1, DATA, RC | ND, b""), REQUEST)


@pytest.mark.parametrize("end", [data(1, flags=RC | ND), error(1, 5, "x"), frame(1, RESPONSE)])
def test_78_nothing_is_written_on_a_stream_that_has_ended(calls: Calls, end: bytes) -> None:
    stream = calls.stream("Chat")
    only(calls)
    calls.send(end)
    with contextlib.suppress(NotFound):
        assert stream.recv() is None
    with pytest.raises(StatusError):
        stream.send("late")
    stream.close_send()
    calls.unary()
    assert only(calls).stream_id == 3


def test_79_lost_connection_ends_a_stream_after_its_messages(calls: Calls) -> None:
    stream = calls.stream("Chat")
    calls.send(data(1, "a"))
    calls.lose()
    assert stream.recv().value == "a"
    with pytest.raises(ConnectionClosed, match=r"^ttrpc: closed$"):
        stream.recv()
    with pytest.raises((ConnectionClosed, StreamClosed)):
        stream.send("late")


@pytest.mark.parametrize(
    ("method", "flags", "payload"),
    [("Count", RC, b"\x08\x03"), ("Sum", RO | ND, b""), ("Chat", RO | ND, b"")],
)
def test_golden_stream_opens(calls: Calls, method: str, flags: int, payload: bytes) -> None:
    _stream = calls.stream(method)
    sent = only(calls)
    assert sent.flags == flags
    expected = Request(service=NAME, method=method, payload=payload).SerializeToString()
    assert sent.payload == expected


def test_golden_half_close(calls: Calls) -> None:
    stream = calls.stream("Chat")
    stream.close_send()
    closed = calls.receive(2)[1]
    assert frame(*closed[:3], closed.payload) == bytes.fromhex("00000000 00000001 0305")


@pytest.mark.parametrize(
    ("received", "value"),
    [
        ("00000000 00000001 02 00", 0),
        ("00000002 00000001 02 00 0a00", 0),
        ("00000004 00000001 02 00 12020802", 2),
    ],
    ids=["Go's empty", "Rust's empty", "Go's with a payload"],
)
def test_golden_replies_are_taken(calls: Calls, received: str, value: int) -> None:
    stream = calls.stream("Sum")
    calls.send(bytes.fromhex(received))
    assert stream.recv() == Int64Value(value=value)


def test_golden_error_is_taken(calls: Calls) -> None:
    result = calls.unary()
    calls.send(bytes.fromhex("0000000a 00000001 02 00 0a08 0802 1204 626f6f6d"))
    with pytest.raises(StatusError, match=r"^boom$") as raised:
        result()
    assert raised.value.code == 2


def test_golden_end_of_a_stream_is_taken(calls: Calls) -> None:
    stream = calls.stream("Chat")
    calls.send(bytes.fromhex("00000000 00000001 03 05"))
    assert stream.recv() is None


def test_golden_request() -> None:
    methods = {"Connect": ("containerd.task.v2.Task", "Connect")}
    service, name = methods["Connect"]
    core = ClientCore()
    rpc = methods_of(SERVICE, None)["Nothing"]
    core.open(rpc, Request(service=service, method=name).SerializeToString())
    expected = bytes.fromhex("00000022 00000001 01 00 0a17") + service.encode()
    assert core.outbox.take() == expected + b"\x12\x07Connect"


def test_ids_are_used_up_once_the_last_is_taken() -> None:
    core = ClientCore()
    rpc = methods_of(SERVICE, None)["Echo"]
    core._next_id = 0xFFFFFFFF
    assert core.open(rpc, rpc.prefix).id == 0xFFFFFFFF
    with pytest.raises(ConnectionClosed, match="used up"):
        core.open(rpc, rpc.prefix)


def test_78_queued_data_of_a_stream_that_ended_is_dropped() -> None:
    core = ClientCore()
    methods = methods_of(SERVICE, None)
    chat, other = methods["Chat"], methods["Echo"]
    stream = core.open(chat, chat.prefix)
    core.outbox.take()
    for _ in range(3):
        core.send(stream, b"queued")
    core.open(other, other.prefix)
    core.outbox.consume(5)
    core.receive_data(data(1, flags=RC | ND))
    # What is partly on the wire has to go on; the rest is withheld.
    rest = core.outbox.take()
    assert rest[:11] == frame(1, DATA, 0, b"queued")[5:]
    frames, _ = split(rest[11:])
    assert [sent.stream_id for sent in frames] == [3]
    assert core.outbox.size == 0


def test_80_abandoned_stream_is_out_of_the_table_and_its_data_dropped() -> None:
    core = ClientCore()
    rpc = methods_of(SERVICE, None)["Chat"]
    stream = core.open(rpc, rpc.prefix)
    core.receive_data(data(1, "a"))
    core.abandon(stream, Cancelled())
    assert (len(core.streams), core.inbox_size) == (0, 0)
    assert core.receive_data(data(1, "b")) == []


def test_78_queued_data_of_an_abandoned_stream_is_dropped_at_its_end() -> None:
    core = ClientCore()
    rpc = methods_of(SERVICE, None)["Chat"]
    stream = core.open(rpc, rpc.prefix)
    core.outbox.take()
    core.send(stream, b"queued")
    core.abandon(stream, Cancelled())
    assert core.outbox.size
    core.receive_data(error(1, 5, "x"))
    assert not core.outbox.size


def test_80_what_was_sent_before_letting_go_still_arrives() -> None:
    calls = LiveCalls(bytewise=False)
    handle = calls.stream("Sum")
    handle.close_send()
    del handle
    assert [each.kind for each in calls.receive(2)] == [REQUEST, DATA]
    calls.client.close()


def test_80_stream_object_let_go_is_out_of_the_table() -> None:
    calls = LiveCalls(bytewise=False)
    handle = calls.stream("Chat")
    calls.receive()
    assert calls.in_progress() == 1
    del handle
    assert calls.in_progress() == 0
    calls.send(data(1, "late"))
    result = calls.unary()
    calls.send(reply(3, "alive"))
    assert result().value == "alive"
    calls.client.close()
