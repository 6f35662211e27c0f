"""The server's connections, interceptors and end; numbered as the conformance list."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue

from kuasar_agent.ttrpc import (
    Client,
    Code,
    Context,
    Limits,
    OutOfRange,
    Peer,
    Server,
    ServerClosed,
    StatusError,
    Unimplemented,
    connect,
    listen,
    same_user,
    vsock_host_only,
)
from tests.support.ttrpc.echo import SERVICE, Echo
from tests.support.ttrpc.live import raw, serving, until
from tests.support.ttrpc.wire import PATIENCE, SocketWire, only, request


def test_81_slow_call_does_not_delay_a_fast_one(live: SocketWire, echo: Echo) -> None:
    live.send(request(1, "Block", text="slow"), request(3, text="fast"))
    assert only(live).stream_id == 3
    echo.release.set()
    assert only(live).stream_id == 1


def test_82_a_thousand_calls_at_once_are_all_answered(
    client: Client, server: Server, echo: Echo
) -> None:
    stub = client.stub(SERVICE)
    calls = [gevent.spawn(stub.block, StringValue(value=str(index))) for index in range(1000)]
    until(lambda: server.running == 1000)
    stub.echo(StringValue())
    echo.release.set()
    gevent.joinall(calls, timeout=PATIENCE, raise_error=True)
    assert [each.get().value for each in calls] == [str(index) for index in range(1000)]
    assert (server.running, client.calls) == (0, 0)


def test_83_peer_that_stops_reading_hurts_only_itself(echo: Echo, address: str) -> None:
    limits = Limits(outbox_drop=2 << 20)
    with serving(address, echo, limits=limits) as server, raw(address) as deaf:
        message = StringValue(value="x" * (256 << 10)).SerializeToString()
        deaf.settimeout(PATIENCE)
        with connect(address) as client:
            until(lambda: server.connections == 2)
            flood = b"".join(request(each, payload=message) for each in range(1, 100, 2))
            with pytest.raises(OSError, match=r"reset|pipe"):
                deaf.sendall(flood)
            assert client.stub(SERVICE).echo(StringValue(value="fine")).value == "fine"
            assert server.connections == 1


def test_83_stream_to_a_peer_that_stops_reading_waits(
    echo: Echo, server: Server, address: str
) -> None:
    with raw(address) as deaf:
        amount = 64
        blobs = Int64Value(value=amount << 32 | 1 << 20).SerializeToString()
        deaf.sendall(request(1, "Blobs", payload=blobs))
        until(lambda: server.running == 1)
        until(lambda: server.buffered()[1] >= Limits().outbox_wait)
        gevent.sleep(0.01)
        assert server.buffered()[1] < 4 << 20
        wire = SocketWire(deaf, echo)
        assert len(wire.receive(amount + 1)) == amount + 1
        until(lambda: not server.running)


def test_84_handler_may_call_its_own_server(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/sock"

    class Recursive(Echo):
        def echo(self, ctx: Context, request: StringValue) -> StringValue:
            if request.value:
                with connect(address) as client:
                    client.stub(SERVICE).echo(StringValue(value=request.value[1:]))
            return request

    with serving(address, Recursive()), connect(address) as client:
        assert client.stub(SERVICE).echo(StringValue(value="abc"), timeout=PATIENCE).value == "abc"


def test_85_shutdown_lets_calls_end_and_closes_idle_connections_at_once(
    server: Server, client: Client, echo: Echo, address: str
) -> None:
    running = gevent.spawn(client.stub(SERVICE).block, StringValue(value="patience"))
    idle = SocketWire(raw(address), echo)
    assert echo.entered.wait(PATIENCE)
    until(lambda: server.connections == 2)
    stopping = gevent.spawn(server.shutdown, PATIENCE)
    assert idle.at_end()
    with pytest.raises(ConnectionRefusedError):
        raw(address)
    with pytest.raises(StatusError, match=r"^ttrpc: server closed$") as raised:
        client.stub(SERVICE).echo(StringValue())
    assert raised.value.code == Code.UNAVAILABLE
    echo.release.set()
    assert running.get(timeout=PATIENCE).value == "patience"
    assert stopping.get(timeout=PATIENCE) is True


def test_85_shutdown_gives_up_when_its_time_is_over(
    server: Server, client: Client, echo: Echo
) -> None:
    running = gevent.spawn(client.stub(SERVICE).block, StringValue())
    assert echo.entered.wait(PATIENCE)
    assert server.shutdown(timeout=0.02) is False
    with pytest.raises(StatusError, match=r"^ttrpc: closed$"):
        running.get(timeout=PATIENCE)


def test_86_close_cancels_handlers_and_ends_serve(echo: Echo, address: str) -> None:
    server = Server()
    server.register(SERVICE, echo, partial=True)
    serve = gevent.spawn(server.serve, listen(address))
    gevent.sleep(0)
    with connect(address) as client:
        waiting = gevent.spawn(client.stub(SERVICE).wait, StringValue())
        assert echo.entered.wait(PATIENCE)
        server.close()
        with pytest.raises(ServerClosed, match=r"^ttrpc: server closed$"):
            serve.get(timeout=PATIENCE)
        assert echo.finished.get(timeout=PATIENCE) == "wait"
        with pytest.raises(StatusError, match=r"^ttrpc: closed$"):
            waiting.get(timeout=PATIENCE)
    with pytest.raises(ServerClosed):
        server.serve(listen(address))


def test_89_client_gone_cancels_its_handlers_and_their_replies_are_dropped(
    live: SocketWire, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    live.send(request(1, "Block"))
    assert echo.entered.wait(PATIENCE)
    context = echo.contexts[0]
    assert not context.cancelled.is_set()
    live.sock.close()
    assert context.cancelled.wait(PATIENCE)
    echo.release.set()
    assert echo.finished.get(timeout=PATIENCE) == "block"
    assert not caplog.records


def test_91_accepting_goes_on_after_running_out_of_descriptors(
    server: Server, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []
    waiting = socket.socket(socket.AF_UNIX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.open("/dev/null", os.O_RDONLY))
        waiting.connect(address.removeprefix("unix://"))
        until(lambda: any("cannot accept" in record.message for record in caplog.records))
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: server.connections == 1)
    waiting.close()


@pytest.mark.parametrize("allowed", [True, False])
def test_92_refused_peer_gets_a_bare_close(echo: Echo, address: str, allowed: bool) -> None:
    def policy(sock: socket.socket, peer: Peer) -> bool:
        return same_user(sock, peer._replace(uid=peer.uid if allowed else 12345))

    with serving(address, echo, authorize=policy), raw(address) as sock:
        wire = SocketWire(sock, echo)
        if allowed:
            wire.send(request(1, text="hi"))
            assert only(wire).text == "hi"
        else:
            assert wire.at_end()


def test_92_policy_that_fails_refuses(echo: Echo, address: str) -> None:
    def policy(_sock: socket.socket, _peer: Peer) -> bool:
        raise RuntimeError("undecided")

    with serving(address, echo, authorize=policy), raw(address) as sock:
        assert SocketWire(sock, echo).at_end()


@pytest.mark.parametrize(("cid", "allowed"), [(2, True), (1, False), (3, False)])
def test_92_on_vsock_only_the_host_may_call(cid: int, allowed: bool) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert vsock_host_only(sock, Peer(socket.AF_VSOCK, cid=cid, port=1)) is allowed
        assert vsock_host_only(sock, Peer(socket.AF_UNIX, uid=0)) is True


def test_93_half_open_peer_ends_the_connection_and_its_handlers(
    live: SocketWire, echo: Echo
) -> None:
    live.send(request(1, "Wait"))
    assert echo.entered.wait(PATIENCE)
    live.sock.shutdown(socket.SHUT_WR)
    assert echo.finished.get(timeout=PATIENCE) == "wait"
    assert live.at_end()


def test_94_interceptors_see_the_method_and_metadata_and_may_change_the_outcome(
    echo: Echo, address: str
) -> None:
    seen: list[Any] = []

    def outer(ctx: Context, request: Any, proceed: Callable[..., Any]) -> Any:
        seen.append(("outer", ctx.method, ctx.metadata.get("who")))
        try:
            return proceed(ctx, request)
        except ZeroDivisionError:
            raise OutOfRange("divided") from None

    def inner(ctx: Context, request: Any, proceed: Callable[..., Any]) -> Any:
        seen.append(("inner", ctx.method, request))
        reply = proceed(ctx, request)
        return StringValue(value=reply.value.upper()) if isinstance(reply, StringValue) else reply

    echo.error = ZeroDivisionError()
    with serving(address, echo, interceptors=[outer, inner]), connect(address) as client:
        stub = client.stub(SERVICE)
        assert stub.echo(StringValue(value="hi"), metadata={"who": "me"}).value == "HI"
        with pytest.raises(OutOfRange, match=r"^divided$"):
            stub.throw(StringValue())
        assert [each.value for each in stub.count(Int64Value(value=2))] == [0, 1]
        assert stub.sum().close_and_recv().value == 0
    name = f"/{SERVICE.full_name}"
    assert seen[:2] == [
        ("outer", f"{name}/Echo", "me"),
        ("inner", f"{name}/Echo", StringValue(value="hi")),
    ]
    assert seen[-2:] == [("outer", f"{name}/Sum", None), ("inner", f"{name}/Sum", None)]


def test_service_may_be_served_under_a_second_name(echo: Echo, address: str) -> None:
    with serving(address, echo) as server, connect(address) as client:
        server.register(SERVICE, echo, name="other.Name", partial=True)
        stub = client.stub(SERVICE, name="other.Name")
        assert stub.echo(StringValue(value="hi")).value == "hi"
        assert echo.contexts[-1].method == "/other.Name/Echo"


def test_handler_that_lacks_methods_is_refused() -> None:
    server = Server()
    with pytest.raises(TypeError, match=r"^Echo has no method for Missing of ttrpc\.test\.Echo$"):
        server.register(SERVICE, Echo())


def test_rpc_that_a_partial_handler_lacks_is_unimplemented(client: Client) -> None:
    with pytest.raises(Unimplemented, match=r"^/ttrpc\.test\.Echo/Missing is not supported$"):
        client.stub(SERVICE).missing(StringValue())


def test_server_listens_on_several_sockets(server: Server, echo: Echo, tmp_path: Path) -> None:
    second = f"unix://{tmp_path}/second"
    server.start(listen(second))
    with connect(second) as client:
        assert client.stub(SERVICE).echo(StringValue(value="hi")).value == "hi"


def test_peer_on_a_unix_socket_is_known_by_its_credentials(client: Client, echo: Echo) -> None:
    client.stub(SERVICE).echo(StringValue())
    peer = echo.contexts[0].peer
    assert peer is not None
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())


def test_killed_handler_s_worker_serves_other_calls(client: Client, echo: Echo) -> None:
    stub = client.stub(SERVICE)
    for _ in range(3):
        with pytest.raises(StatusError):
            stub.wait(StringValue(), timeout=0.01)
        assert echo.finished.get(timeout=PATIENCE) == "wait"
    assert stub.echo(StringValue(value="hi")).value == "hi"


def test_handlers_run_in_the_order_of_their_requests(address: str) -> None:
    order: list[str] = []

    class Ordered(Echo):
        def echo(self, _ctx: Context, request: StringValue) -> StringValue:
            order.append(request.value)
            if int(request.value) % 3 == 0:
                gevent.sleep(0)
            return request

    echo = Ordered()
    with serving(address, echo), raw(address) as sock:
        wire = SocketWire(sock, echo)
        sock.sendall(b"".join(request(2 * each + 1, text=str(each)) for each in range(50)))
        wire.receive(50)
    assert order == [str(each) for each in range(50)]


def test_calls_cancelled_before_their_handler_starts_do_not_run(address: str) -> None:
    class Closing(Echo):
        def echo(self, _ctx: Context, request: StringValue) -> StringValue:
            self.finished.put(request.value)
            server.close()
            return request

    echo = Closing()
    with serving(address, echo) as server, raw(address) as sock:
        sock.sendall(request(1, text="one") + request(3, text="two"))
        assert echo.finished.get(timeout=PATIENCE) == "one"
        until(lambda: not server.connections and not server.running)
        assert echo.finished.empty()


def test_bytes_go_through_unchanged(client: Client) -> None:
    value = bytes(range(256)) * 1000
    assert client.stub(SERVICE).echo_bytes(BytesValue(value=value)).value == value


def test_log_names_the_method_that_failed(
    client: Client, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    echo.error = RuntimeError("inside")
    with caplog.at_level(logging.ERROR), pytest.raises(StatusError):
        client.stub(SERVICE).throw(StringValue())
    assert f"/{SERVICE.full_name}/Throw" in caplog.text


def test_waiting_event_is_set_for_a_context_cancelled_before(echo: Echo) -> None:
    context = Context("/a/B")
    context.cancel()
    assert context.cancelled.is_set()
    assert isinstance(context.cancelled, Event)
