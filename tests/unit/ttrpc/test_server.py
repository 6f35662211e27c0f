"""The server's handlers, deadlines and streams; numbered as the conformance list."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import gevent
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from kuasar_agent.ttrpc import (
    Client,
    Code,
    Context,
    FailedPrecondition,
    Limits,
    NotFound,
    Server,
    StatusError,
    connect,
)
from tests.support.ttrpc.echo import SERVICE, Echo
from tests.support.ttrpc.live import raw, serving, until
from tests.support.ttrpc.wire import (
    DATA,
    LIMIT,
    ND,
    PATIENCE,
    RC,
    RO,
    SocketWire,
    data,
    only,
    request,
)

# Framing


def test_01_stream_over_a_socket_byte_by_byte_is_answered(
    server: Server, echo: Echo, address: str
) -> None:
    with raw(address) as sock:
        wire = SocketWire(sock, echo, bytewise=True)
        wire.send(request(1, "Chat", text="a", flags=RO), data(1, "b"), data(1, flags=RC | ND))
        assert [answer.text for answer in wire.receive(2)] == ["a", "b"]
        assert only(wire).flags == RC | ND


@pytest.mark.parametrize("size", [4, 20], ids=["header", "payload"])
def test_08_09_end_inside_a_frame_closes_quietly_and_cancels_handlers(
    live: SocketWire, echo: Echo, server: Server, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    live.send(request(1, "Wait"), request(3, text="x")[:size])
    assert echo.entered.wait(PATIENCE)
    live.sock.close()
    assert echo.finished.get(timeout=PATIENCE) == "wait"
    until(lambda: not server.connections)
    assert not caplog.records


# Dispatch and status


def test_26_status_with_details_arrives_bit_for_bit(client: Client, echo: Echo) -> None:
    detail = AnyMessage(type_url="some.Type", value=b"\x00\xff")
    echo.error = FailedPrecondition("not yet", details=[detail, detail])
    with pytest.raises(FailedPrecondition, match=r"^not yet$") as raised:
        client.stub(SERVICE).throw(StringValue())
    assert raised.value.code == Code.FAILED_PRECONDITION
    assert raised.value.details == (detail, detail)


def test_26_unlisted_code_passes_through(client: Client, echo: Echo) -> None:
    echo.error = StatusError.from_code(4711, "odd")
    with pytest.raises(StatusError, match=r"^odd$") as raised:
        client.stub(SERVICE).throw(StringValue())
    assert raised.value.code == 4711


def test_26_status_with_code_0_is_not_taken_for_success(client: Client, echo: Echo) -> None:
    echo.error = StatusError.from_code(0, "fine?")
    with pytest.raises(StatusError, match=r"^fine\?$") as raised:
        client.stub(SERVICE).throw(StringValue())
    assert raised.value.code == Code.UNKNOWN


def test_27_ordinary_exception_is_2_with_its_text_and_the_traceback_stays_in_the_log(
    client: Client, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    echo.error = ZeroDivisionError("by zero")
    with pytest.raises(StatusError, match=r"^by zero$") as raised:
        client.stub(SERVICE).throw(StringValue())
    assert raised.value.code == Code.UNKNOWN
    assert client.stub(SERVICE).echo(StringValue(value="alive")).value == "alive"
    assert [record.exc_info and record.exc_info[1] for record in caplog.records] == [echo.error]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError(errno.ENOENT, "none", "/x"), Code.NOT_FOUND),
        (FileExistsError(errno.EEXIST, "there", "/x"), Code.ALREADY_EXISTS),
        (PermissionError(errno.EPERM, "no"), Code.PERMISSION_DENIED),
        (EOFError("the end"), Code.OUT_OF_RANGE),
        (gevent.Timeout(3), Code.DEADLINE_EXCEEDED),
        (SystemExit(1), Code.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__,
)
def test_28_known_exceptions_have_codes(
    client: Client, echo: Echo, error: BaseException, code: int
) -> None:
    echo.error = error
    with pytest.raises(StatusError) as raised:
        client.stub(SERVICE).throw(StringValue())
    assert raised.value.code == code
    assert raised.value.message == str(error)


def test_25_message_that_does_not_parse_is_13(live: SocketWire) -> None:
    live.send(request(1, payload=b"\xff\xff"))
    code, text = only(live).status
    assert code == 13
    assert text.startswith("ttrpc: error unmarshalling payload: ")


def test_29_none_is_an_error_where_a_message_is_declared(client: Client, echo: Echo) -> None:
    class Forgetful(Echo):
        def echo(self, _ctx: Context, _request: StringValue) -> Any:
            return None

    with pytest.raises(StatusError, match=r"^ttrpc: marshal called with nil$") as raised:
        call(Forgetful(), "Echo")
    assert raised.value.code == Code.UNKNOWN


def test_29_none_is_an_empty_message_where_empty_is_declared(client: Client) -> None:
    assert client.stub(SERVICE).nothing(Empty()) == Empty()


def test_29_another_message_than_declared_is_13(tmp_path: Path) -> None:
    class Confused(Echo):
        def echo(self, _ctx: Context, _request: StringValue) -> Any:
            return Int64Value()

    with pytest.raises(StatusError, match=r"returned Int64Value$") as raised:
        call(Confused(), "Echo")
    assert raised.value.code == Code.INTERNAL


def call(handler: Echo, method: str) -> Any:
    """One call on a server of its own."""
    with (
        serving("unix://@ttrpc-test-call", handler),
        connect("unix://@ttrpc-test-call") as client,
    ):
        return client.call(f"/{SERVICE.full_name}/{method}", StringValue())


def test_31_oversize_reply_is_8_and_the_connection_lives(client: Client, echo: Echo) -> None:
    class Bulky(Echo):
        def echo(self, _ctx: Context, _request: StringValue) -> StringValue:
            return StringValue(value="x" * LIMIT)

    with pytest.raises(StatusError, match=r"^message length \d+ exceed maximum") as raised:
        call(Bulky(), "Echo")
    assert raised.value.code == Code.RESOURCE_EXHAUSTED


def test_31_oversize_streamed_message_is_8(client: Client) -> None:
    stream = client.stub(SERVICE).blobs(Int64Value(value=1 << 32 | LIMIT))
    with pytest.raises(StatusError, match=r"^message length \d+ exceed maximum") as raised:
        stream.recv()
    assert raised.value.code == Code.RESOURCE_EXHAUSTED


def test_oversize_error_text_is_cut_to_fit(client: Client, echo: Echo) -> None:
    detail = AnyMessage(value=bytes(LIMIT))
    echo.error = NotFound("x" * (LIMIT + 1), details=[detail])
    with pytest.raises(NotFound) as raised:
        client.stub(SERVICE).throw(StringValue())
    assert raised.value.message == "x" * (64 << 10)
    assert raised.value.details == ()


def test_error_text_that_is_not_unicode_is_escaped(client: Client, echo: Echo) -> None:
    echo.error = FileNotFoundError(os.fsdecode(b"/tmp/\xff"))
    with pytest.raises(NotFound, match=r"^/tmp/\\udcff$"):
        client.stub(SERVICE).throw(StringValue())


def test_42_metadata_keeps_repeated_keys_in_order_whatever_their_case(
    client: Client, echo: Echo
) -> None:
    client.stub(SERVICE).echo(StringValue(), metadata={"Key": ["one", "two"], "other": "x"})
    metadata = echo.contexts[0].metadata
    assert metadata.get_all("KEY") == ["one", "two"]
    assert (metadata.get("kEy"), metadata.get("none"), metadata.get("none", "-")) == (
        "one",
        None,
        "-",
    )
    assert "OTHER" in metadata
    assert list(metadata) == [("key", "one"), ("key", "two"), ("other", "x")]


def test_42_more_metadata_than_anyone_sends_is_refused(live: SocketWire) -> None:
    live.send(request(1, text="x", metadata=[("", "")] * 1025), request(3, text="next"))
    refusal, served = live.receive(2)
    assert refusal.status[0] == Code.RESOURCE_EXHAUSTED
    assert served.text == "next"


# Time


def test_43_client_s_timeout_is_the_handler_s_deadline(client: Client, echo: Echo) -> None:
    client.stub(SERVICE).echo(StringValue(), timeout=2)
    remaining = echo.contexts[0].remaining()
    assert remaining is not None
    assert 0 < remaining <= 2


def test_44_no_timeout_is_no_deadline(live: SocketWire, echo: Echo) -> None:
    live.send(request(1, text="x"))
    only(live)
    assert echo.contexts[0].deadline is None
    assert echo.contexts[0].remaining() is None


def test_44_timeout_of_centuries_is_harmless(live: SocketWire) -> None:
    live.send(request(1, text="x", timeout=(1 << 63) - 1))
    assert only(live).text == "x"


def test_46_overrun_is_answered_with_4_and_the_late_result_discarded(
    live: SocketWire, echo: Echo, server: Server
) -> None:
    live.send(request(1, "Block", text="late", timeout=20_000_000))
    assert only(live).status == (4, "context deadline exceeded")
    assert echo.contexts[0].cancelled.is_set()
    assert server.running == 1
    echo.release.set()
    assert echo.finished.get(timeout=PATIENCE) == "block"
    live.send(request(3, text="next"))
    assert only(live).stream_id == 3
    assert server.running == 0


def test_46_overrun_kills_a_cancellable_handler(live: SocketWire, echo: Echo) -> None:
    live.send(request(1, "Wait", timeout=20_000_000))
    assert only(live).status == (4, "context deadline exceeded")
    assert echo.finished.get(timeout=PATIENCE) == "wait"


def test_46_handler_that_never_waits_cannot_answer_after_its_deadline(live: SocketWire) -> None:
    live.send(request(1, text="x", timeout=1))
    assert only(live).status == (4, "context deadline exceeded")


# Streams


def test_66_handler_may_receive_after_its_own_end(live: SocketWire, echo: Echo) -> None:
    live.send(request(1, "Parting", flags=RO))
    end = only(live)
    assert (end.kind, end.flags) == (DATA, RC | ND)
    live.send(data(1, "one"), data(1, "two"), data(1, flags=RC | ND), data(1, "late"))
    assert echo.finished.get(timeout=PATIENCE) == "one,two"
    live.send(request(3, text="next"))
    assert only(live).text == "next"


def test_67_flooded_stream_that_takes_nothing_fails_alone(echo: Echo, address: str) -> None:
    with serving(address, echo, limits=Limits(stall=0.01)), raw(address) as sock:
        wire = SocketWire(sock, echo)
        wire.send(request(1, "Hold", flags=RO))
        assert echo.entered.wait(PATIENCE)
        wire.send(*[data(1, "x" * (64 << 10))] * 32)
        wire.send(request(3, text="next"))
        assert only(wire).status == (3, "data handling error: ttrpc: stream buffer full")
        assert only(wire).text == "next"
        assert echo.finished.get(timeout=PATIENCE) == "hold"


def test_70_handler_blocked_in_recv_wakes_when_the_peer_is_gone(
    live: SocketWire, echo: Echo
) -> None:
    live.send(request(1, "Idle", flags=RO))
    assert echo.entered.wait(PATIENCE)
    live.sock.close()
    assert echo.finished.get(timeout=PATIENCE) == "ttrpc: closed"


def test_70_handler_blocked_in_recv_wakes_at_its_deadline(live: SocketWire, echo: Echo) -> None:
    live.send(request(1, "Idle", flags=RO, timeout=20_000_000))
    assert only(live).status == (4, "context deadline exceeded")
    assert echo.finished.get(timeout=PATIENCE) == "context deadline exceeded"
