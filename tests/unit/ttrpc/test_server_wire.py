"""What a server answers to a client's frames; the numbers are those of the conformance list."""

from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from kuasar_agent.ttrpc.envelope_pb2 import Request
from kuasar_agent.ttrpc.status import Unknown
from tests.support.ttrpc.echo import NAME
from tests.support.ttrpc.wire import (
    DATA,
    LIMIT,
    ND,
    RC,
    REQUEST,
    RESPONSE,
    RO,
    CoreWire,
    Frame,
    Wire,
    data,
    frame,
    only,
    request,
)

END = (DATA, RC | ND, b"")


def number(stream_id: int, value: int, flags: int = 0) -> bytes:
    return frame(stream_id, DATA, flags, Int64Value(value=value).SerializeToString())


def count(stream_id: int, method: str, value: int) -> bytes:
    payload = Int64Value(value=value).SerializeToString()
    return request(stream_id, method, payload=payload, flags=RC)


def assert_ended(answer: Frame, stream_id: int) -> None:
    assert answer == Frame(stream_id, *END)


def test_01_request_byte_by_byte_is_answered(wire: Wire) -> None:
    wire.send(request(1, text="hi"))
    assert only(wire).text == "hi"


def test_02_glued_requests_are_both_answered(wire: Wire) -> None:
    wire.send(request(1, text="one"), request(3, text="two"))
    assert [answer.text for answer in wire.receive(2)] == ["one", "two"]


def test_03_request_of_exactly_the_limit_is_served(wire: Wire) -> None:
    spare = len(request(1, text="x" * (3 << 20))) - 10 - (3 << 20)
    whole = request(1, text="x" * (LIMIT - spare))
    assert len(whole) == LIMIT + 10
    wire.send(whole)
    assert len(only(wire).text) == LIMIT - spare


def test_04_oversize_request_is_answered_with_8(wire: Wire) -> None:
    wire.send(frame(1, REQUEST, 0, bytes(LIMIT + 1)), request(3, text="next"))
    refusal, served = wire.receive(2)
    assert refusal.stream_id == 1
    text = "message length 4194305 exceed maximum message size of 4194304"
    assert refusal.status == (8, text)
    assert served.text == "next"


def test_05_oversize_data_ends_only_its_stream_with_8(wire: Wire) -> None:
    wire.send(request(1, "Chat", flags=RO), request(3, "Chat", flags=RO))
    wire.send(frame(1, DATA, 0, bytes(LIMIT + 1)), data(1, "late"), data(3, "alive"))
    refusal, alive = wire.receive(2)
    assert (refusal.stream_id, refusal.status[0]) == (1, 8)
    assert (alive.stream_id, alive.text) == (3, "alive")


@pytest.mark.parametrize("kind", [0, 4, 255])
def test_06_unknown_types_are_skipped(wire: Wire, kind: int) -> None:
    wire.send(frame(1, kind, 0, b"payload"), request(3, text="next"))
    assert only(wire).text == "next"


def test_06_oversize_unknown_type_is_skipped(wire: Wire) -> None:
    wire.send(frame(1, 9, 0, bytes(LIMIT + 5)), request(3, text="next"))
    assert only(wire).text == "next"


def test_07_response_from_a_client_is_skipped(wire: Wire) -> None:
    wire.send(frame(1, RESPONSE, 0, b"\x12\x02\x08\x02"), request(3, text="next"))
    assert only(wire).text == "next"


def test_10_empty_envelope_is_an_unknown_service_without_a_name(wire: Wire) -> None:
    wire.send(frame(1, REQUEST))
    assert only(wire).status == (12, "service ")


def test_12_garbage_envelope_is_answered_with_3(wire: Wire) -> None:
    wire.send(frame(1, REQUEST, 0, b"\xff\xff\xff"), request(3, text="next"))
    refusal, served = wire.receive(2)
    assert refusal.status[0] == 3
    assert refusal.status[1].startswith("unmarshal request error: ")
    assert served.text == "next"


def test_13_unknown_envelope_fields_are_ignored(wire: Wire) -> None:
    payload = StringValue(value="hi").SerializeToString()
    envelope = Request(service=NAME, method="Echo", payload=payload).SerializeToString()
    wire.send(frame(1, REQUEST, 0, b"\x78\x01" + envelope + b"\xfa\x01\x03abc"))
    assert only(wire).text == "hi"


def test_14_undefined_flags_on_a_request_are_ignored(wire: Wire) -> None:
    wire.send(request(1, text="hi", flags=0xF8))
    assert only(wire).text == "hi"


@pytest.mark.parametrize("kind", [REQUEST, DATA, 9])
@pytest.mark.parametrize("stream_id", [2, 0])
def test_15_16_even_and_zero_ids_are_answered_with_3(wire: Wire, stream_id: int, kind: int) -> None:
    wire.send(frame(stream_id, kind, 0, request(1, text="hi")[10:]))
    refusal = only(wire)
    assert refusal.stream_id == stream_id
    assert refusal.status == (3, "StreamID must be odd for client initiated streams")


def test_17_reused_id_is_answered_with_3(wire: Wire) -> None:
    wire.send(request(5, text="hi"))
    assert only(wire).text == "hi"
    wire.send(request(5, text="again"))
    refusal = only(wire)
    assert refusal.stream_id == 5
    assert refusal.status == (3, "StreamID cannot be re-used and must increment")


def test_18_lower_id_is_refused_and_a_higher_one_served(wire: Wire) -> None:
    wire.send(request(5, text="hi"))
    assert only(wire).text == "hi"
    wire.send(request(3, text="lower"), request(7, text="higher"))
    refusal, served = wire.receive(2)
    assert refusal.status == (3, "StreamID cannot be re-used and must increment")
    assert served.text == "higher"


@pytest.mark.parametrize("bytewise", [False, True])
def test_18_lenient_server_takes_ids_out_of_order_but_not_twice(bytewise: bool) -> None:
    wire = CoreWire(bytewise=bytewise, strict_ids=False)
    wire.send(request(5, "Chat"), request(3, text="lower"), request(5, text="active"))
    wire.send(request(7, text="last"), request(7, text="again"))
    answers = wire.receive(4)
    refusals = [answer.status for answer in answers if answer.response.status.code]
    assert refusals == [(3, "StreamID cannot be re-used and must increment")] * 2
    served = [answer.text for answer in answers if not answer.response.status.code]
    assert served == ["lower", "last"]


def test_19_first_id_may_be_any(wire: Wire) -> None:
    wire.send(request(99, text="hi"))
    assert only(wire).text == "hi"


def test_20_last_id_is_served(wire: Wire) -> None:
    wire.send(request(0xFFFFFFFF, text="hi"))
    answer = only(wire)
    assert (answer.stream_id, answer.text) == (0xFFFFFFFF, "hi")


def test_23_unknown_service_is_12(wire: Wire) -> None:
    wire.send(request(1, service="no.such.Service"))
    assert only(wire).status == (12, "service no.such.Service")


def test_24_unknown_method_is_12(wire: Wire) -> None:
    wire.send(request(1, "NoSuch"))
    assert only(wire).status == (12, "method NoSuch")


def test_30_empty_reply_is_ok_and_empty(wire: Wire) -> None:
    wire.send(request(1, "Nothing"))
    answer = only(wire)
    assert (answer.kind, answer.flags, answer.payload) == (RESPONSE, 0, b"")
    assert not answer.response.HasField("status")


def test_45_negative_timeout_is_answered_with_4_without_the_handler(wire: Wire) -> None:
    wire.send(request(1, text="hi", timeout=-1), request(3, text="next"))
    refusal, served = wire.receive(2)
    assert refusal.status == (4, "context deadline exceeded")
    assert served.text == "next"


@pytest.mark.parametrize("flags", [RO, RO | ND, 0, RC])
def test_49_duplex_works_whatever_the_flags_of_its_request(wire: Wire, flags: int) -> None:
    wire.send(request(1, "Chat", flags=flags), data(1, "a"), data(1, "b"), data(1, flags=RC | ND))
    first, second, end = wire.receive(3)
    assert [first.text, second.text] == ["a", "b"]
    assert_ended(end, 1)


def test_50_duplex_without_a_payload_begins_without_a_message(wire: Wire) -> None:
    wire.send(request(1, "Chat", flags=RO), data(1, flags=RC | ND))
    assert_ended(only(wire), 1)


def test_50_explicit_empty_payload_is_none(wire: Wire) -> None:
    envelope = Request(service=NAME, method="Chat").SerializeToString() + b"\x1a\x00"
    wire.send(frame(1, REQUEST, RO, envelope), data(1, flags=RC | ND))
    assert_ended(only(wire), 1)


def test_51_duplex_with_a_payload_begins_with_that_message(wire: Wire) -> None:
    wire.send(request(1, "Chat", text="first", flags=RO), data(1, flags=RC | ND))
    first, end = wire.receive(2)
    assert first.text == "first"
    assert_ended(end, 1)


def test_52_server_stream_without_a_payload_has_one_empty_request(wire: Wire) -> None:
    wire.send(request(1, "Count", flags=RC))
    assert_ended(only(wire), 1)


@pytest.mark.parametrize("amount", [0, 1, 20])
def test_53_server_stream_ends_with_exactly_one_close(wire: Wire, amount: int) -> None:
    wire.send(count(1, "Count", amount), request(3, text="next"))
    *messages, end, served = wire.receive(amount + 2)
    assert [Int64Value.FromString(each.payload).value for each in messages] == [*range(amount)]
    assert all((each.kind, each.flags) == (DATA, 0) for each in messages)
    assert_ended(end, 1)
    assert served.text == "next"


def test_54_failed_server_stream_ends_with_a_response_only(wire: Wire) -> None:
    wire.send(count(1, "Failing", 2), request(3, text="next"))
    *messages, failure, served = wire.receive(4)
    assert [each.kind for each in messages] == [DATA, DATA]
    assert failure.status == (5, "no more")
    assert served.text == "next"


def test_55_client_stream_is_answered_with_one_response(wire: Wire) -> None:
    wire.send(request(1, "Sum", flags=RO), number(1, 4), number(1, 5), data(1, flags=RC | ND))
    wire.send(request(3, text="next"))
    answer, served = wire.receive(2)
    assert (answer.stream_id, answer.kind) == (1, RESPONSE)
    assert Int64Value.FromString(answer.response.payload).value == 9
    assert served.text == "next"


def test_56_empty_data_is_an_empty_message(wire: Wire) -> None:
    wire.send(request(1, "Chat", flags=RO), data(1))
    assert only(wire) == Frame(1, DATA, 0, b"")


def test_57_empty_data_with_the_close_is_a_message_then_the_end(wire: Wire) -> None:
    wire.send(request(1, "Chat", flags=RO), data(1, flags=RC))
    message, end = wire.receive(2)
    assert message == Frame(1, DATA, 0, b"")
    assert_ended(end, 1)


def test_58_close_without_data_is_the_end_without_a_message(wire: Wire) -> None:
    wire.send(request(1, "Chat", flags=RO), data(1, "a"), data(1, flags=RC | ND))
    message, end = wire.receive(2)
    assert message.text == "a"
    assert_ended(end, 1)


def test_59_data_with_the_close_is_a_message_then_the_end(wire: Wire) -> None:
    wire.send(request(1, "Chat", flags=RO), data(1, "last", flags=RC))
    message, end = wire.receive(2)
    assert message.text == "last"
    assert_ended(end, 1)


def test_60_no_data_alone_is_nothing(wire: Wire) -> None:
    wire.send(request(1, "Chat", flags=RO), data(1, flags=ND), data(1, "a"))
    assert only(wire).text == "a"


@pytest.mark.parametrize("flags", [ND, ND | RC])
def test_61_payload_beside_no_data_is_ignored(wire: Wire, flags: int) -> None:
    wire.send(request(1, "Chat", flags=RO), data(1, "ignored", flags=flags))
    if not flags & RC:
        wire.send(data(1, flags=RC | ND))
    assert_ended(only(wire), 1)


def test_62_data_after_the_clients_close_is_refused_and_the_call_goes_on(wire: Wire) -> None:
    wire.send(request(1, "Late", flags=RO), data(1, flags=RC | ND), data(1, "late"))
    assert only(wire).status == (3, "data handling error: ttrpc: stream closed")
    wire.release()
    message, end = wire.receive(2)
    assert message.text == "late"
    assert_ended(end, 1)


@pytest.mark.parametrize("late", [data(1, "late"), data(1, flags=RC | ND)], ids=["data", "close"])
@pytest.mark.parametrize("ended", ["Goodbye", "Failing", "Echo", "NoSuch"])
def test_63_data_after_the_servers_end_is_dropped(wire: Wire, ended: str, late: bytes) -> None:
    """containerd logs an answer as the error of a stream that ended well."""
    wire.send(request(1, ended, flags=RO))
    wire.receive(2 if ended == "Goodbye" else 1)
    wire.send(late, request(3, text="next"))
    assert only(wire).text == "next"


def test_63_oversize_data_after_the_servers_end_is_dropped(wire: Wire) -> None:
    wire.send(request(1), frame(1, DATA, 0, bytes(LIMIT + 1)), request(3, text="next"))
    assert [answer.stream_id for answer in wire.receive(2)] == [1, 3]


def test_64_data_on_an_id_never_opened_is_refused(wire: Wire) -> None:
    wire.send(data(7, "who?"))
    refusal = only(wire)
    assert refusal.stream_id == 7
    assert refusal.status == (3, "StreamID is no longer active")


def test_64_oversize_data_on_an_id_never_opened_is_refused(wire: Wire) -> None:
    wire.send(frame(7, DATA, 0, bytes(LIMIT + 1)))
    assert only(wire).status[0] == 8


@pytest.mark.parametrize("size", [0, 5, LIMIT + 1])
def test_65_data_on_a_unary_call_is_ignored_and_the_call_completes(wire: Wire, size: int) -> None:
    wire.send(request(1, "Block", text="patience"), frame(1, DATA, 0, bytes(size)))
    wire.send(request(3, text="next"))
    assert only(wire).text == "next"
    wire.release()
    answer = only(wire)
    assert (answer.stream_id, answer.text) == (1, "patience")


def test_66_client_may_close_after_the_servers_end(wire: Wire) -> None:
    wire.send(request(1, "Goodbye", flags=RO))
    message, end = wire.receive(2)
    assert message.text == "bye"
    assert_ended(end, 1)
    wire.send(data(1, flags=RC | ND), request(3, text="next"))
    assert only(wire).text == "next"


def test_68_many_messages_keep_their_order(wire: Wire) -> None:
    amount = 2_000
    wire.send(request(1, "Chat", flags=RO))
    received: list[str] = []
    for start in range(0, amount, 1000):
        wire.send(*(data(1, str(each)) for each in range(start, start + 1000)))
        received += [each.text for each in wire.receive(1000)]
    assert received == [str(each) for each in range(amount)]


def test_69_interleaved_streams_do_not_mix(wire: Wire) -> None:
    wire.send(request(1, "Chat"), request(3, "Chat"))
    for index in range(20):
        wire.send(data(1, f"one {index}"), data(3, f"two {index}"))
    answers = wire.receive(40)
    for stream_id, word in ((1, "one"), (3, "two")):
        texts = [answer.text for answer in answers if answer.stream_id == stream_id]
        assert texts == [f"{word} {index}" for index in range(20)]


GOLDEN = [
    ("0000000000000001 0200", "empty reply", request(1, "Nothing")),
    (
        "0000001300000001 0200 0a11080512 0d6e6f2073756368207468696e67",
        "error",
        request(1, "Throw"),
    ),
    ("0000000000000001 0305", "end of a stream", request(1, "Count", flags=RC)),
]


@pytest.mark.parametrize(("expected", "name", "sent"), GOLDEN, ids=[each[1] for each in GOLDEN])
def test_golden_answers_are_go_s_byte_for_byte(
    wire: Wire, expected: str, name: str, sent: bytes
) -> None:
    wire.send(sent)
    answer = only(wire)
    encoded = frame(answer.stream_id, answer.kind, answer.flags, answer.payload)
    assert encoded == bytes.fromhex(expected)


def test_golden_reply_with_a_payload(wire: Wire) -> None:
    wire.send(request(1, "Sum", flags=RO), number(1, 2, flags=RC))
    assert only(wire) == Frame(1, RESPONSE, 0, bytes.fromhex("12020802"))


def test_golden_error_is_go_s_byte_for_byte() -> None:
    core = CoreWire(bytewise=False).core
    ((_, stream),) = core.receive_data(request(1))
    core.fail(stream, Unknown("boom"))
    expected = "0000000a 00000001 02 00 0a08 0802 1204 626f6f6d"
    assert core.outbox.take() == bytes.fromhex(expected)


@pytest.mark.parametrize("flags", ["02", "06"], ids=["of Go and Rust 0.7", "of Rust since"])
def test_golden_open_of_a_duplex_begins_without_a_message(wire: Wire, flags: str) -> None:
    envelope = Request(service=NAME, method="Chat").SerializeToString()
    opening = bytes.fromhex(f"{len(envelope):08x} 00000001 01 {flags}") + envelope
    wire.send(opening, bytes.fromhex("00000000 00000001 03 05"))
    assert_ended(only(wire), 1)
