"""Unary calls to the server over a unix socket."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import gevent
import gevent.event
import pytest
from gevent.socket import SHUT_RDWR
from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api.task_pb2 import (
    ConnectRequest,
    ConnectResponse,
    StateRequest,
    StateResponse,
    WaitRequest,
    WaitResponse,
)
from kuasar_agent.ttrpc import Code, Context, DeadlineExceeded, StatusError, cancellable
from kuasar_agent.ttrpc.frames import DATA, HEADER, MAX_PAYLOAD, REQUEST, RESPONSE, encode
from tests.unit.ttrpc.peers import METHODS, SERVICE, TASK, Served, eventually, request, serving

STATE = StateRequest(id="c").SerializeToString()


class Tasks:
    """State echoes the id, Connect raises or returns what the test says, Wait waits for it."""

    def __init__(self) -> None:
        self.act: Callable[[], object] = ConnectResponse
        self.contexts: list[Context] = []
        self.release = gevent.event.Event()
        self.ended = gevent.event.Event()

    def state(self, context: Context, message: StateRequest) -> StateResponse:
        self.contexts.append(context)
        return StateResponse(id=message.id)

    def connect(self, context: Context, _: ConnectRequest) -> object:
        self.contexts.append(context)
        return self.act()

    def wait(self, context: Context, _: WaitRequest) -> WaitResponse:
        self.contexts.append(context)
        try:
            self.release.wait()
        finally:
            self.ended.set()
        return WaitResponse(exit_status=7)

    @cancellable
    def pause(self, context: Context, _: object) -> Empty:
        self.contexts.append(context)
        try:
            self.release.wait()
        finally:
            self.ended.set()
        return Empty()


def assert_serves(served: Served) -> None:
    with served.raw() as peer:
        peer.call(1, "State", STATE)
        assert peer.status() == (1, 0, "")


def test_a_request_byte_by_byte_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path, Tasks()) as served, served.raw() as peer:
        for byte in request(1, "State", STATE):
            peer.send(bytes([byte]))
            gevent.sleep(0)
        stream, response = peer.response()
        assert (stream, StateResponse.FromString(response.payload).id) == (1, "c")


def test_requests_in_one_write_are_both_answered(tmp_path: Path) -> None:
    with serving(tmp_path, Tasks()) as served, served.raw() as peer:
        peer.send(request(1, "State", STATE) + request(3, "State", STATE))
        assert {peer.status(), peer.status()} == {(1, 0, ""), (3, 0, "")}


def test_a_request_of_exactly_the_limit_is_served(tmp_path: Path) -> None:
    bare = len(request(1, "Connect", bytes(MAX_PAYLOAD - 100))) - HEADER.size
    name = "x" * (MAX_PAYLOAD - 100 + MAX_PAYLOAD - bare - 5)
    payload = ConnectRequest(id=name).SerializeToString()
    wire = request(1, "Connect", payload)
    assert len(wire) == HEADER.size + MAX_PAYLOAD
    with serving(tmp_path, Tasks()) as served, served.raw() as peer:
        peer.send(wire)
        assert peer.status() == (1, 0, "")


def test_an_oversize_request_gets_8_and_the_next_is_served(tmp_path: Path) -> None:
    with serving(tmp_path, Tasks()) as served, served.raw() as peer:
        peer.send(HEADER.pack(MAX_PAYLOAD + 1, 1, REQUEST, 0) + bytes(MAX_PAYLOAD + 1))
        text = "message length 4194305 exceed maximum message size of 4194304"
        assert peer.status() == (1, Code.RESOURCE_EXHAUSTED, text)
        peer.call(3, "State", STATE)
        assert peer.status() == (3, 0, "")


@pytest.mark.parametrize("kind", [0, RESPONSE, 4, 255])
def test_types_that_no_client_sends_are_not_answered(tmp_path: Path, kind: int) -> None:
    with serving(tmp_path, Tasks()) as served, served.raw() as peer:
        peer.send(encode(1, kind, 0, b"payload") + request(3, "State", STATE))
        assert peer.status() == (3, 0, "")


@pytest.mark.parametrize("cut", [3, HEADER.size, HEADER.size + 3])
def test_an_end_inside_a_frame_closes_quietly_and_cancels_handlers(
    tmp_path: Path, cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = Tasks()
    with serving(tmp_path, tasks) as served:
        with served.raw() as peer:
            peer.send(request(1, "Wait") + request(3, "State", STATE)[:cut])
            eventually(lambda: tasks.contexts)
            peer.half_close()
            assert peer.at_end()
        assert tasks.contexts[0].cancelled.wait(10)
        assert not tasks.ended.is_set()
        tasks.release.set()
        assert tasks.ended.wait(10)
        assert_serves(served)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("wire", "code", "text"),
    [
        (encode(1, REQUEST, 0, b""), Code.UNIMPLEMENTED, "service "),
        (request(1, "M", service="X"), Code.UNIMPLEMENTED, "service X"),
        (request(1, "M"), Code.UNIMPLEMENTED, "method M"),
        (request(1, "Kill"), Code.UNIMPLEMENTED, f"/{SERVICE}/Kill is not supported"),
        (encode(1, REQUEST, 0, b"\xff"), Code.INVALID_ARGUMENT, "unmarshal request error: "),
        (request(1, "State", b"\xff"), Code.INTERNAL, "ttrpc: error unmarshalling payload: "),
        (request(1, "State", b"\x0a\x01\xff"), Code.INTERNAL, "ttrpc: error unmarshalling"),
    ],
)
def test_what_cannot_be_dispatched_is_refused_and_the_connection_lives(
    tmp_path: Path, wire: bytes, code: int, text: str
) -> None:
    with serving(tmp_path, Tasks()) as served, served.raw() as peer:
        peer.send(wire)
        stream, found, message = peer.status()
        assert (stream, found) == (1, code)
        assert message.startswith(text)
        peer.call(3, "State", STATE)
        assert peer.status() == (3, 0, "")


def test_ids_must_be_odd_and_grow_but_may_leave_gaps(tmp_path: Path) -> None:
    odd = "StreamID must be odd for client initiated streams"
    reused = "StreamID cannot be re-used and must increment"
    invalid = Code.INVALID_ARGUMENT
    expected = {2: (invalid, odd), 0: (invalid, odd), 99: (0, ""), 97: (invalid, reused)}
    with serving(tmp_path, Tasks()) as served, served.raw() as peer:
        for stream, status in {**expected, 101: (0, ""), 0xFFFFFFFF: (0, "")}.items():
            peer.call(stream, "State", STATE)
            assert peer.status() == (stream, *status)
        peer.call(0xFFFFFFFF, "State", STATE)
        assert peer.status() == (0xFFFFFFFF, invalid, reused)


def test_an_id_whose_late_handler_still_runs_is_not_served_again(tmp_path: Path) -> None:
    tasks = Tasks()
    with serving(tmp_path, tasks, strict_ids=False) as served, served.raw() as peer:
        peer.call(1, "Wait", timeout_nano=1_000_000)
        assert peer.status()[:2] == (1, Code.DEADLINE_EXCEEDED)
        peer.call(3, "State", STATE)
        assert peer.status() == (3, 0, "")
        peer.call(1, "Wait")
        text = "StreamID cannot be re-used and must increment"
        assert peer.status() == (1, Code.INVALID_ARGUMENT, text)


def test_a_status_of_a_handler_arrives_with_its_details(tmp_path: Path) -> None:
    detail = Any(type_url="a/b", value=b"\x00\xff")
    tasks = Tasks()
    with serving(tmp_path, tasks) as served, served.client() as client:
        for code in (5, 14, 99):
            tasks.act = _raiser(StatusError.from_code(code, "text", [detail]))
            with pytest.raises(StatusError, match="text") as caught:
                client.call(METHODS["Connect"], ConnectRequest())
            assert (caught.value.code, caught.value.details) == (code, (detail,))


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("what"), Code.UNKNOWN, "what"),
        (ValueError(), Code.UNKNOWN, "ValueError"),
        (FileNotFoundError("f"), Code.NOT_FOUND, "f"),
        (FileExistsError("f"), Code.ALREADY_EXISTS, "f"),
        (PermissionError("f"), Code.PERMISSION_DENIED, "f"),
        (EOFError("f"), Code.OUT_OF_RANGE, "f"),
        (FileNotFoundError(os.fsdecode(b"f\xff")), Code.NOT_FOUND, "f\\udcff"),
        (gevent.Timeout(5), Code.DEADLINE_EXCEEDED, "5 seconds"),
    ],
)
def test_an_exception_of_a_handler_is_answered_and_only_reported_here(
    tmp_path: Path, error: BaseException, code: int, text: str
) -> None:
    tasks = Tasks()
    tasks.act = _raiser(error)
    reported: list[tuple[str, BaseException]] = []
    options = {"on_error": lambda *args: reported.append(args)}
    with serving(tmp_path, tasks, **options) as served, served.raw() as peer:
        peer.call(1, "Connect")
        assert peer.status() == (1, code, text)
        assert reported == [(f"/{SERVICE}/Connect", error)]
        peer.call(3, "State", STATE)
        assert peer.status() == (3, 0, "")


def test_a_handler_that_returns_nothing_gets_2(tmp_path: Path) -> None:
    tasks = Tasks()
    tasks.act = lambda: None
    with serving(tmp_path, tasks) as served, served.raw() as peer:
        peer.call(1, "Connect")
        assert peer.status() == (1, Code.UNKNOWN, "ttrpc: marshal called with nil")


def test_an_empty_reply_is_ok_and_empty(tmp_path: Path) -> None:
    with serving(tmp_path, Tasks()) as served, served.raw() as peer:
        peer.call(1, "Connect")
        stream, response = peer.response()
        assert (stream, response.status.code, response.payload) == (1, 0, b"")


def test_a_reply_too_large_gets_8_and_the_connection_lives(tmp_path: Path) -> None:
    tasks = Tasks()
    tasks.act = lambda: ConnectResponse(version="x" * MAX_PAYLOAD)
    with serving(tmp_path, tasks) as served, served.raw() as peer:
        peer.call(1, "Connect")
        assert peer.status()[:2] == (1, Code.RESOURCE_EXHAUSTED)
        peer.call(3, "State", STATE)
        assert peer.status() == (3, 0, "")


def test_metadata_keeps_its_order_and_its_keys_have_no_case(tmp_path: Path) -> None:
    tasks = Tasks()
    with serving(tmp_path, tasks) as served, served.client() as client:
        pairs = [("Ns", "1"), ("other", "2"), ("nS", "3")]
        client.call(METHODS["State"], StateRequest(), metadata=pairs)
    (context,) = tasks.contexts
    assert context.metadata.get_all("NS") == ["1", "3"]
    assert context.metadata.get("nothing") is None
    assert context.method == f"/{SERVICE}/State"


def test_a_timeout_becomes_the_handlers_deadline(tmp_path: Path) -> None:
    tasks = Tasks()
    with serving(tmp_path, tasks) as served, served.client() as client:
        client.call(METHODS["State"], StateRequest(), timeout=2)
        client.call(METHODS["State"], StateRequest())
    limited, unlimited = tasks.contexts
    remaining = limited.remaining()
    assert remaining is not None
    assert 0 <= remaining <= 2
    assert unlimited.deadline is None
    assert unlimited.remaining() is None


def test_the_longest_timeout_of_the_wire_is_served(tmp_path: Path) -> None:
    with serving(tmp_path, Tasks()) as served, served.raw() as peer:
        peer.call(1, "State", STATE, timeout_nano=2**63 - 1)
        assert peer.status() == (1, 0, "")


def test_a_negative_timeout_gets_4_and_no_handler_runs(tmp_path: Path) -> None:
    tasks = Tasks()
    with serving(tmp_path, tasks) as served, served.raw() as peer:
        peer.call(1, "State", STATE, timeout_nano=-1)
        assert peer.status() == (1, Code.DEADLINE_EXCEEDED, "context deadline exceeded")
        assert tasks.contexts == []


def test_an_overrun_gets_4_and_the_late_result_is_not_sent(tmp_path: Path) -> None:
    tasks = Tasks()
    with serving(tmp_path, tasks) as served, served.raw() as peer:
        peer.call(1, "Wait", timeout_nano=1_000_000)
        assert peer.status() == (1, Code.DEADLINE_EXCEEDED, "context deadline exceeded")
        assert tasks.contexts[0].cancelled.is_set()
        assert not tasks.ended.is_set()
        tasks.release.set()
        assert tasks.ended.wait(10)
        peer.call(3, "State", STATE)
        assert peer.status() == (3, 0, "")


def test_an_overrun_that_ends_in_a_failure_is_answered_once(tmp_path: Path) -> None:
    tasks = Tasks()
    tasks.act = lambda: [tasks.release.wait(), _raiser(DeadlineExceeded("late"))()]
    with serving(tmp_path, tasks) as served, served.raw() as peer:
        peer.call(1, "Connect", timeout_nano=1_000_000)
        assert peer.status() == (1, Code.DEADLINE_EXCEEDED, "context deadline exceeded")
        tasks.release.set()
        peer.call(3, "State", STATE)
        assert peer.status() == (3, 0, "")


def test_an_overrun_of_a_cancellable_handler_stops_it(tmp_path: Path) -> None:
    tasks = Tasks()
    with serving(tmp_path, tasks) as served, served.raw() as peer:
        peer.call(1, "Pause", timeout_nano=50_000_000)
        assert peer.status() == (1, Code.DEADLINE_EXCEEDED, "context deadline exceeded")
        assert tasks.ended.wait(10)


def test_a_call_that_expires_before_its_handler_starts_is_forgotten(tmp_path: Path) -> None:
    with serving(tmp_path, Tasks()) as served, served.raw() as peer:
        for stream in range(1, 401, 2):
            peer.call(stream, "Pause", timeout_nano=1)
        assert {peer.status()[1] for _ in range(200)} == {Code.DEADLINE_EXCEEDED}
        (connection,) = served.server._connections
        eventually(lambda: not connection._calls)
        assert connection._core.active == set()


def test_a_slow_call_does_not_delay_a_fast_one(tmp_path: Path) -> None:
    tasks = Tasks()
    with serving(tmp_path, tasks) as served, served.raw() as peer:
        peer.send(request(1, "Wait") + request(3, "State", STATE))
        assert peer.status() == (3, 0, "")
        tasks.release.set()
        assert peer.status() == (1, 0, "")


def test_data_for_an_open_unary_call_does_no_harm(tmp_path: Path) -> None:
    tasks = Tasks()
    with serving(tmp_path, tasks) as served, served.raw() as peer:
        peer.send(request(1, "Wait") + encode(1, DATA, 0, b"x") + request(3, "State", STATE))
        assert peer.status() == (3, 0, "")
        tasks.release.set()
        assert peer.status() == (1, 0, "")


def test_a_thousand_parallel_calls_get_their_own_answers(tmp_path: Path) -> None:
    with serving(tmp_path, Tasks()) as served, served.client() as client:
        task = client.stub(TASK)
        calls = [gevent.spawn(task.state, StateRequest(id=str(i))) for i in range(1000)]
        gevent.joinall(calls)
        assert [call.get().id for call in calls] == [str(i) for i in range(1000)]


def test_calls_beyond_the_limit_get_8(tmp_path: Path) -> None:
    tasks = Tasks()
    with serving(tmp_path, tasks, max_concurrent=2) as served, served.raw() as peer:
        peer.send(b"".join(request(stream, "Wait") for stream in (1, 3, 5)))
        assert peer.status() == (5, Code.RESOURCE_EXHAUSTED, "more than 2 open calls")
        tasks.release.set()
        assert {peer.status()[:2], peer.status()[:2]} == {(1, 0), (3, 0)}


def test_a_peer_that_floods_does_not_keep_others_waiting(tmp_path: Path) -> None:
    # Frames that nobody answers, so nothing but the reader's own manners makes room.
    flood = encode(1, 255, 0, b"") * 20_000
    with serving(tmp_path, Tasks()) as served, served.raw() as flooder, served.client() as client:
        client.call(METHODS["State"], StateRequest())
        descriptor = os.dup(flooder.socket.fileno())
        os.set_blocking(descriptor, True)
        stop, sent = threading.Event(), 0

        def write() -> None:
            nonlocal sent
            # Bounded, so that a starved test fails and does not hang.
            while not stop.is_set() and sent < 200 * len(flood):
                sent += os.write(descriptor, flood)

        thread = threading.Thread(target=write)
        thread.start()
        eventually(lambda: sent)
        client.call(METHODS["State"], StateRequest())
        answered_during_flood = thread.is_alive()
        stop.set()
        eventually(lambda: not thread.is_alive())
        os.close(descriptor)
        assert answered_during_flood


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_a_client_that_leaves_cancels_its_calls(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = Tasks()
    with serving(tmp_path, tasks) as served:
        peer = served.raw()
        peer.send(request(1, "Wait") + request(3, "Pause"))
        eventually(lambda: len(tasks.contexts) == 2)
        if how == "half":
            peer.half_close()
            assert peer.at_end()
        elif how == "reset":
            peer.socket.shutdown(SHUT_RDWR)
        peer.socket.close()
        for context in tasks.contexts:
            assert context.cancelled.wait(10)
        # The cancellable one is stopped; the other runs on, and writing its answer harms nobody.
        assert tasks.ended.wait(10)
        tasks.release.set()
        assert_serves(served)
        eventually(lambda: not served.server._connections)
    assert capsys.readouterr().err == ""


def test_nothing_is_left_after_many_calls_and_connections(tmp_path: Path) -> None:
    tasks = Tasks()
    tasks.act = _raiser(StatusError("no"))
    with serving(tmp_path, tasks, on_error=lambda *_: None) as served:
        with served.client() as client:
            eventually(lambda: served.server._connections)
            (connection,) = served.server._connections
            for _ in range(2000):
                client.call(METHODS["State"], StateRequest(), timeout=30)
                with pytest.raises(StatusError):
                    client.call(METHODS["Connect"], ConnectRequest())
            assert client._waiting == {}
            assert client._core.active == set()
            eventually(lambda: not connection._calls)
            assert connection._core.active == set()
        eventually(lambda: not served.server._connections)
        before = _open_files()
        for _ in range(1000):
            with served.client():
                pass
        eventually(lambda: not served.server._connections)
        assert _open_files() == before


def test_a_peer_that_is_not_authorized_is_closed_without_a_frame(tmp_path: Path) -> None:
    verdicts: list[Callable[[], bool]] = [lambda: False, _raiser(OSError("gone")), lambda: True]
    options = {"authorize": lambda *_: verdicts.pop(0)(), "on_error": lambda *_: None}
    with serving(tmp_path, Tasks(), **options) as served:
        for _ in range(2):
            with served.raw() as peer:
                assert peer.at_end()
        assert_serves(served)


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _raiser(error: BaseException) -> Callable[[], bool]:
    def act() -> bool:
        raise error

    return act
