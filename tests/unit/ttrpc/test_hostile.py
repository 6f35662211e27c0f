"""Peers that break the rules, flood or vanish: only their own connection suffers."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from kuasar_agent.ttrpc import Client, Limits, NotFound, Server, StatusError, connect
from kuasar_agent.ttrpc.server_core import ServerCore
from kuasar_agent.ttrpc.service import methods_of
from tests.support.ttrpc.echo import NAME, SERVICE, Echo
from tests.support.ttrpc.live import raw, serving, until
from tests.support.ttrpc.wire import (
    DATA,
    LIMIT,
    PATIENCE,
    RC,
    RO,
    SocketWire,
    data,
    frame,
    only,
    request,
)

REUSED = (3, "StreamID cannot be re-used and must increment")


def assert_serves(address: str) -> None:
    with connect(address, PATIENCE) as client:
        assert client.stub(SERVICE).echo(StringValue(value="hi")).value == "hi"


def test_garbage_at_a_live_server_leaves_a_good_client_alone(
    server: Server, client: Client, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = random.Random(1)
    stub = client.stub(SERVICE)
    for index in range(200):
        with raw(address) as bad:
            bad.sendall(source.randbytes(source.randrange(1, 2000)))
            kinds = [source.randrange(6) for _ in range(20)]
            bad.sendall(b"".join(frame(index, kind, index, b"\x0a\xff") for kind in kinds))
            assert stub.echo(StringValue(value=str(index))).value == str(index)
    until(lambda: server.connections == 1)
    assert not caplog.records


def test_flood_of_one_connection_does_not_keep_another_waiting(
    server: Server, client: Client, address: str
) -> None:
    # Frames without an answer: only the bound on one read makes room for other connections.
    flood = frame(1, 255) * 20_000
    stub = client.stub(SERVICE)
    with raw(address) as flooder:
        descriptor = os.dup(flooder.fileno())
        os.set_blocking(descriptor, True)
        stop, sent = threading.Event(), 0

        def write() -> None:
            nonlocal sent
            # Bounded, so that a starved test fails and does not hang.
            while not stop.is_set() and sent < 500 * len(flood):
                sent += os.write(descriptor, flood)

        thread = threading.Thread(target=write)
        thread.start()
        until(lambda: sent > 0)
        for _ in range(3):
            stub.echo(StringValue())
        answered_during_the_flood = thread.is_alive()
        stop.set()
        until(lambda: not thread.is_alive())
        os.close(descriptor)
    assert answered_during_the_flood


@pytest.mark.parametrize("error", [RuntimeError("undecided"), gevent.Timeout(1), SystemExit(1)])
def test_policy_that_raises_does_not_end_the_accept_loop(
    echo: Echo, address: str, error: BaseException
) -> None:
    errors = [error] * 5

    def policy(*_: Any) -> bool:
        if errors:
            raise errors.pop()
        return True

    with serving(address, echo, authorize=policy):
        for _ in range(5):
            with raw(address) as sock:
                assert SocketWire(sock, echo).at_end()
        assert_serves(address)


def test_connection_beyond_the_most_is_closed_at_once(echo: Echo, address: str) -> None:
    with serving(address, echo, limits=Limits(connections=2)) as server:
        kept = [raw(address), raw(address)]
        until(lambda: server.connections == 2)
        with raw(address) as sock:
            assert SocketWire(sock, echo).at_end()
        kept.pop().close()
        until(lambda: server.connections == 1)
        assert_serves(address)
        kept.pop().close()


def test_call_beyond_the_most_is_8_and_leaves_nothing(echo: Echo, address: str) -> None:
    with serving(address, echo, limits=Limits(handlers=2)) as server, raw(address) as sock:
        wire = SocketWire(sock, echo)
        wire.send(request(1, "Block"), request(3, "Block"))
        until(lambda: server.running == 2)
        # The refused stream's messages came along in the same read.
        wire.send(request(5, "Chat", text="first", flags=RO) + data(5, "second"))
        assert only(wire).status == (8, "ttrpc: too many calls in progress")
        assert (server.buffered()[0], server.calls) == (0, 2)
        echo.release.set()
        wire.receive(2)
        wire.send(request(7, text="next"))
        assert only(wire).text == "next"


def test_call_beyond_the_most_of_a_connection_is_8(echo: Echo, address: str) -> None:
    with serving(address, echo, limits=Limits(streams=2)), raw(address) as sock:
        wire = SocketWire(sock, echo)
        wire.send(*(request(each, "Block") for each in (1, 3, 5)))
        assert only(wire).status == (8, "ttrpc: too many calls in progress on this connection")
        assert_serves(address)


def test_lenient_server_refuses_an_id_whose_late_handler_still_runs(
    echo: Echo, address: str
) -> None:
    with serving(address, echo, strict_ids=False), raw(address) as sock:
        wire = SocketWire(sock, echo)
        wire.send(request(1, "Block", timeout=1_000_000))
        assert only(wire).status[0] == 4
        wire.send(request(3, text="next"))
        assert only(wire).text == "next"
        wire.send(request(1, text="again"))
        assert only(wire).status == REUSED
        echo.release.set()
        assert echo.finished.get(timeout=PATIENCE) == "block"


@pytest.mark.parametrize("method", ["Wait", "Block", "Echo", "Chat", "Count"])
def test_calls_that_expire_before_their_handler_starts_leave_nothing(
    server: Server, echo: Echo, address: str, method: str
) -> None:
    echo.release.set()
    with raw(address) as sock:
        wire = SocketWire(sock, echo)
        wire.send(*(request(each, method, timeout=1) for each in range(1, 401, 2)))
        answers = wire.receive(200)
        assert {answer.stream_id for answer in answers} == {*range(1, 401, 2)}
        assert {answer.status[0] for answer in answers} == {4}
        until(lambda: not server.running)
        assert server.calls == 0
        wire.send(request(401, text="next"))
        assert only(wire).text == "next"


@pytest.mark.parametrize("late", ["reply", "error"])
def test_late_handler_s_call_is_answered_once(late: str, address: str) -> None:
    class Late(Echo):
        def echo(self, _ctx: Any, request: StringValue) -> StringValue:
            self.release.wait()
            if late == "error":
                raise NotFound("late")
            return request

    echo = Late()
    with serving(address, echo) as server, raw(address) as sock:
        wire = SocketWire(sock, echo)
        wire.send(request(1, text="x", timeout=1_000_000))
        assert only(wire).status == (4, "context deadline exceeded")
        echo.release.set()
        until(lambda: not server.running)
        wire.send(request(3, "Nothing"))
        assert only(wire).stream_id == 3


def test_handler_that_waits_for_a_deaf_peer_ends_at_its_deadline(
    server: Server, echo: Echo, address: str
) -> None:
    with raw(address) as deaf:
        blobs = Int64Value(value=64 << 32 | 1 << 20).SerializeToString()
        deaf.sendall(request(1, "Blobs", payload=blobs, timeout=50_000_000))
        until(lambda: server.running == 1)
        until(lambda: not server.running)
        assert server.connections == 1


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_client_that_leaves_in_any_way_ends_its_calls(
    server: Server, echo: Echo, address: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    peer = SocketWire(raw(address), echo)
    peer.send(request(1, "Block"), request(3, "Wait"), request(5, "Chat", flags=RO))
    until(lambda: len(echo.contexts) == 2)
    if how == "half":
        peer.sock.shutdown(1)
        assert peer.at_end()
    elif how == "reset":
        # Closing with bytes unread resets a unix socket.
        peer.send(request(7, text="x"))
        until(lambda: server.running == 3)
    peer.sock.close()
    for context in echo.contexts[:2]:
        assert context.cancelled.wait(PATIENCE)
    assert echo.finished.get(timeout=PATIENCE) == "wait"
    echo.release.set()
    until(lambda: not (server.running or server.connections))
    assert_serves(address)
    assert not caplog.records


def test_memory_of_a_connection_is_bounded_while_no_handler_takes_messages() -> None:
    limits = Limits(stream_inbox=1 << 16, connection_inbox=1 << 18)
    core = ServerCore({NAME: methods_of(SERVICE, None)}, limits=limits)
    core.receive_data(b"".join(request(each, "Hold") for each in range(1, 41, 2)))
    chunk = b"".join(data(each, "x" * 4096) for each in range(1, 41, 2))
    rounds = 0
    while not core.congested:
        core.receive_data(chunk)
        rounds += 1
    # A transport stops reading from the socket here.
    assert core.inbox_size < limits.connection_inbox + len(chunk) * 2
    assert rounds > 1
    failed = [stream.id for _ in range(20) for _, stream in core.expire()]
    assert failed
    assert core.inbox_size < limits.connection_inbox


def test_reading_goes_on_when_a_handler_ends_with_messages_untaken(
    echo: Echo, address: str
) -> None:
    limits = Limits(stream_inbox=1 << 12, stall=10 * PATIENCE)
    with serving(address, echo, limits=limits) as server, raw(address) as sock:
        wire = SocketWire(sock, echo)
        wire.send(request(1, "Hold", flags=RO), data(1, "x" * (1 << 12)))
        assert echo.entered.wait(PATIENCE)
        until(lambda: server.buffered()[0] >= limits.stream_inbox)
        wire.send(request(3, text="next"))
        echo.release.set()
        ended, served = wire.receive(2)
        assert (ended.stream_id, served.text) == (1, "next")


def test_announced_payload_is_not_allocated_before_it_comes() -> None:
    core = ServerCore({})
    core.receive_data(frame(1, DATA, RC, bytes(LIMIT))[:20])
    assert core.partial_size == 20


def test_oversize_payload_is_never_kept() -> None:
    core = ServerCore({})
    core.receive_data(b"\xff\xff\xff\xff\x00\x00\x00\x01\x01\x00")
    for _ in range(100):
        core.receive_data(bytes(1 << 16))
    assert core.partial_size == 0


def test_many_replies_to_a_slow_reader_all_arrive(client: Client) -> None:
    stub = client.stub(SERVICE)
    calls: list[Callable[[], Any]] = [
        lambda: len(stub.echo_bytes(BytesValue(value=bytes(1 << 20))).value),
        lambda: sum(1 for _ in stub.count(Int64Value(value=5000))),
    ]
    users = [gevent.spawn(call) for call in calls * 8]
    assert [user.get(timeout=PATIENCE) for user in users] == [1 << 20, 5000] * 8


def test_status_error_outside_the_library_s_classes_is_answered(client: Client, echo: Echo) -> None:
    class Special(NotFound):
        """A subclass of the application's own."""

    echo.error = Special("special")
    with pytest.raises(StatusError, match=r"^special$") as raised:
        client.stub(SERVICE).throw(StringValue())
    assert type(raised.value) is NotFound
