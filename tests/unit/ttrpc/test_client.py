"""A live client: time, metadata, interceptors and the end; numbered as the conformance list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import gevent
import pytest
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from kuasar_agent.ttrpc import (
    Cancelled,
    Client,
    ClientStream,
    ConnectionClosed,
    DeadlineExceeded,
    InvalidArgument,
    Limits,
    StreamFull,
    Unimplemented,
    connect,
)
from kuasar_agent.ttrpc.client import CallInfo
from kuasar_agent.ttrpc.envelope_pb2 import KeyValue, Request
from tests.support.ttrpc.echo import NAME, SERVICE, Echo
from tests.support.ttrpc.live import until
from tests.support.ttrpc.wire import (
    DATA,
    ND,
    PATIENCE,
    RC,
    REQUEST,
    SocketWire,
    data,
    frame,
    only,
    pair,
    reply,
)


class Ends:
    """A client and the raw server that it is connected to."""

    def __init__(self, **options: Any) -> None:
        theirs, ours = pair()
        self.client = Client(theirs, **options)
        self.stub = self.client.stub(SERVICE)
        self.wire = SocketWire(ours, Echo())

    def start(self, text: str = "", **options: Any) -> gevent.Greenlet[..., Any]:
        """An Echo call, on the wire when this returns."""
        return gevent.spawn(self.stub.echo, StringValue(value=text), **options)


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = Ends()
    yield both
    both.client.close()
    both.wire.sock.close()


def answer(ends: Ends, call: gevent.Greenlet[..., Any], stream_id: int) -> str:
    ends.wire.send(reply(stream_id, "ok"))
    value: str = call.get(timeout=PATIENCE).value
    return value


def flood(stream: ClientStream) -> None:
    """Send until something raises."""
    while True:
        stream.send(BytesValue(value=bytes(1 << 20)))


def test_21_concurrent_calls_are_matched_whatever_the_order_of_replies(ends: Ends) -> None:
    calls = [ends.start() for _ in range(100)]
    sent = ends.wire.receive(100)
    assert [each.stream_id for each in sent] == [*range(1, 200, 2)]
    ends.wire.send(*(reply(each.stream_id, str(each.stream_id)) for each in reversed(sent)))
    values = [call.get(timeout=PATIENCE).value for call in calls]
    assert values == [str(each.stream_id) for each in sent]


def test_42_43_timeout_and_metadata_travel_in_the_request(ends: Ends) -> None:
    call = ends.start("hi", timeout=2, metadata=[("Ns", "1"), ("other", "2"), ("ns", "3")])
    envelope = Request.FromString(only(ends.wire).payload)
    assert 0 < envelope.timeout_nano <= 2_000_000_000
    pairs = [("ns", "1"), ("other", "2"), ("ns", "3")]
    assert list(envelope.metadata) == [KeyValue(key=key, value=value) for key, value in pairs]
    assert answer(ends, call, 1) == "ok"


@pytest.mark.parametrize("timeout", [1e-12, 1e9, 1e18])
def test_43_timeout_of_any_size_fits_the_wire(ends: Ends, timeout: float) -> None:
    call = ends.start(timeout=timeout)
    assert 0 < Request.FromString(only(ends.wire).payload).timeout_nano < 1 << 63
    call.kill()


@pytest.mark.parametrize("timeout", [0, -1])
def test_43_call_without_time_left_is_not_sent(ends: Ends, timeout: float) -> None:
    with pytest.raises(DeadlineExceeded):
        ends.stub.echo(StringValue(), timeout=timeout)
    call = ends.start()
    assert only(ends.wire).stream_id == 1
    assert answer(ends, call, 1) == "ok"


def test_47_no_answer_is_4_at_the_deadline_and_the_late_one_is_dropped(ends: Ends) -> None:
    begun = monotonic()
    with pytest.raises(DeadlineExceeded, match=r"^context deadline exceeded$"):
        ends.stub.echo(StringValue(), timeout=0.02)
    assert monotonic() - begun >= 0.02
    assert ends.client.calls == 0
    ends.wire.send(reply(1, "late"))
    call = ends.start()
    assert [each.stream_id for each in ends.wire.receive(2)] == [1, 3]
    assert answer(ends, call, 3) == "ok"


def test_47_stream_is_over_at_its_deadline_for_both_directions(ends: Ends) -> None:
    stream = ends.stub.chat(timeout=0.02)
    with pytest.raises(DeadlineExceeded):
        stream.recv()
    with pytest.raises(DeadlineExceeded):
        stream.send(StringValue())
    assert ends.client.calls == 0


def test_callers_own_timeout_is_not_taken_for_the_deadline(ends: Ends) -> None:
    stream = ends.stub.chat(timeout=PATIENCE)
    calls: list[Callable[[], Any]] = [
        lambda: ends.stub.echo(StringValue(), timeout=PATIENCE),
        stream.recv,
    ]
    for call in calls:
        own = gevent.Timeout(0.01)
        with pytest.raises(gevent.Timeout) as raised, own:
            call()
        assert raised.value is own
    # Giving up a wait does not give up a stream.
    assert ends.client.calls == 1


def test_killed_caller_leaves_nothing(ends: Ends) -> None:
    call = ends.start(timeout=PATIENCE)
    only(ends.wire)
    call.kill()
    assert ends.client.calls == 0


def test_73_empty_ok_response_ends_a_server_stream(ends: Ends) -> None:
    stream = ends.stub.count(Int64Value(value=1))
    ends.wire.send(data(1), frame(1, 2))
    assert [each.value for each in stream] == [0]


def test_79_loss_wakes_the_greenlets_that_wait_to_receive_or_to_send(ends: Ends) -> None:
    stream = ends.stub.chat_bytes()
    receiving = gevent.spawn(stream.recv)

    sending = gevent.spawn(flood, stream)
    only(ends.wire)
    connection = ends.client._connection
    until(lambda: connection.core.outbox.size >= connection.core.limits.outbox_wait)
    ends.wire.sock.close()
    for waiting in (receiving, sending):
        with pytest.raises(ConnectionClosed, match=r"^ttrpc: closed$"):
            waiting.get(timeout=PATIENCE)


def test_79_waiting_to_send_ends_at_the_deadline(ends: Ends) -> None:
    with pytest.raises(DeadlineExceeded):
        flood(ends.stub.chat_bytes(timeout=0.05))


def test_80_stream_left_as_a_context_is_out_of_the_table(ends: Ends) -> None:
    with ends.stub.chat() as stream:
        assert ends.client.calls == 1
    assert ends.client.calls == 0
    with pytest.raises(Cancelled):
        stream.send(StringValue())


def test_87_lost_connection_fails_every_call_and_the_next_at_once() -> None:
    closed: list[str] = []
    ends = Ends(on_close=lambda: closed.append("closed"))
    calls = [ends.start() for _ in range(3)]
    ends.wire.receive(3)
    ends.wire.sock.close()
    for call in calls:
        with pytest.raises(ConnectionClosed, match=r"^ttrpc: closed$"):
            call.get(timeout=PATIENCE)
    with pytest.raises(ConnectionClosed, match=r"^ttrpc: closed$"):
        ends.stub.echo(StringValue())
    assert ends.client.closed
    ends.client.close()
    gevent.sleep(0)
    assert closed == ["closed"]


def test_88_closing_twice_is_harmless_and_fails_calls_in_progress(ends: Ends) -> None:
    call = ends.start()
    only(ends.wire)
    ends.client.close()
    ends.client.close()
    with pytest.raises(ConnectionClosed, match=r"^ttrpc: closed$"):
        call.get(timeout=PATIENCE)
    assert ends.wire.at_end()


def test_94_interceptors_of_a_client_may_change_timeout_metadata_and_reply() -> None:
    seen: list[str] = []

    def outer(info: CallInfo, request: Any, proceed: Callable[..., Any]) -> Any:
        seen.append(info.method)
        info.metadata.add("who", "me")
        info.timeout = 5
        return proceed(info, request)

    def inner(info: CallInfo, request: Any, proceed: Callable[..., Any]) -> Any:
        reply = proceed(info, request)
        return StringValue(value=reply.value.upper()) if isinstance(reply, StringValue) else reply

    ends = Ends(interceptors=[outer, inner])
    call = ends.start()
    envelope = Request.FromString(only(ends.wire).payload)
    assert list(envelope.metadata) == [KeyValue(key="who", value="me")]
    assert 0 < envelope.timeout_nano <= 5_000_000_000
    assert answer(ends, call, 1) == "OK"
    stream = ends.stub.chat()
    ends.wire.send(data(3, flags=RC | ND))
    assert stream.recv() is None
    assert seen == [f"/{NAME}/Echo", f"/{NAME}/Chat"]
    ends.client.close()


def test_stream_that_is_not_read_fails_alone_and_delays_no_other() -> None:
    ends = Ends(limits=Limits(stream_inbox=1 << 16, stall=0.02))
    idle, busy = ends.stub.chat(), ends.stub.chat()
    ends.wire.receive(2)
    ends.wire.send(data(1, "x" * (1 << 16)), data(3, "hi"))
    assert busy.recv().value == "hi"
    call = ends.start()
    assert only(ends.wire).stream_id == 5
    assert answer(ends, call, 5) == "ok"
    with pytest.raises(StreamFull, match=r"^ttrpc: stream buffer full$"):
        idle.recv()
    ends.client.close()


def test_messages_taken_slowly_fail_no_stream() -> None:
    ends = Ends(limits=Limits(stream_inbox=1 << 16, stall=0.2))
    stream = ends.stub.chat()
    only(ends.wire)
    sending = gevent.spawn(ends.wire.send, *[data(1, "x" * (1 << 15))] * 40, data(1, flags=RC | ND))
    received = 0
    for _ in stream:
        received += 1
        gevent.sleep(0.005)
    sending.get(timeout=PATIENCE)
    assert received == 40
    ends.client.close()


def test_second_greenlet_on_one_stream_is_told_so(ends: Ends) -> None:
    stream = ends.stub.chat()
    waiting = gevent.spawn(stream.recv)
    gevent.sleep(0)
    with pytest.raises(RuntimeError, match="another greenlet"):
        stream.recv()
    ends.wire.send(data(1, flags=RC | ND))
    assert waiting.get(timeout=PATIENCE) is None


def test_one_greenlet_may_send_while_another_receives(client: Client) -> None:
    stream = client.stub(SERVICE).chat()
    received = gevent.spawn(lambda: [each.value for each in stream])
    for index in range(200):
        stream.send(StringValue(value=str(index)))
    stream.close_send()
    assert received.get(timeout=PATIENCE) == [str(index) for index in range(200)]


def test_wrong_use_is_a_type_error_and_sends_nothing(ends: Ends) -> None:
    wrong: list[Callable[[], Any]] = [
        lambda: ends.stub.echo(Int64Value()),
        lambda: ends.stub.count(StringValue()),
        lambda: ends.client.call(f"/{NAME}/Chat", StringValue()),
        lambda: ends.client.stream(f"/{NAME}/Echo", StringValue()),
        lambda: ends.client.stream(f"/{NAME}/Chat", StringValue()),
        lambda: ends.client.stream(f"/{NAME}/Count"),
    ]
    for use in wrong:
        with pytest.raises(TypeError):
            use()
    with pytest.raises(InvalidArgument, match=r"no\.Such"):
        ends.client.call("/no.Such/Method", StringValue())
    with pytest.raises(AttributeError):
        ends.stub.no_such(StringValue())
    stream = ends.stub.chat()
    with pytest.raises(TypeError):
        stream.send(Int64Value())
    opened = only(ends.wire)
    assert (opened.stream_id, opened.kind) == (1, REQUEST)
    stream.close_send()
    assert only(ends.wire) == (1, DATA, RC | ND, b"")


def test_method_may_be_called_by_its_name(client: Client) -> None:
    assert client.call(f"/{NAME}/Echo", StringValue(value="hi")).value == "hi"
    assert [each.value for each in client.stream(f"{NAME}/Count", Int64Value(value=2))] == [0, 1]


def test_method_of_no_imported_module_may_be_called_with_its_reply_type(client: Client) -> None:
    with pytest.raises(Unimplemented, match=r"^service no\.Such$"):
        client.call("/no.Such/Method", StringValue(), reply_type=StringValue)


def test_sixteen_clients_at_once_each_get_their_own_answers(address: str, server: object) -> None:
    def use(index: int) -> list[str]:
        with connect(address) as each:
            stub = each.stub(SERVICE)
            return [stub.echo(StringValue(value=f"{index} {n}")).value for n in range(20)]

    users = [gevent.spawn(use, index) for index in range(16)]
    for index, user in enumerate(users):
        assert user.get(timeout=PATIENCE) == [f"{index} {n}" for n in range(20)]
