"""The table at the head of `stream.py`, row by row, against the bare cores."""

from __future__ import annotations

import pytest

from kuasar_agent.ttrpc import NotFound, StreamClosed
from kuasar_agent.ttrpc.client_core import ClientCore
from kuasar_agent.ttrpc.server_core import ServerCore
from kuasar_agent.ttrpc.service import methods_of
from kuasar_agent.ttrpc.stream import ENDED, HALF_CLOSED, OPEN, State, Stream
from tests.support.ttrpc.echo import NAME, SERVICE
from tests.support.ttrpc.wire import ND, RC, data, frame, reply, request, split

METHODS = methods_of(SERVICE, None)
KINDS = {"Echo": HALF_CLOSED, "Count": HALF_CLOSED, "Sum": OPEN, "Chat": OPEN}
"""A method of each kind, with the state in which its calls begin."""

MESSAGE, CLOSE, LAST = data(1, "x"), data(1, flags=RC | ND), data(1, "x", flags=RC)
RESPONSE, FAILURE = reply(1), frame(1, 2, 0, b"\x0a\x02\x08\x05")


def opened(method: str) -> tuple[ServerCore, Stream]:
    core = ServerCore({NAME: METHODS})
    ((_event, stream),) = core.receive_data(request(1, method))
    return core, stream


def answers(core: ServerCore) -> list[str]:
    return [answer.status[1] for answer in split(core.outbox.take())[0]]


@pytest.mark.parametrize(("method", "state"), KINDS.items())
def test_the_method_decides_in_which_state_a_call_begins(method: str, state: State) -> None:
    assert opened(method)[1].state is state
    assert ClientCore().open(METHODS[method], METHODS[method].prefix).state is state


@pytest.mark.parametrize(
    ("before", "received", "after", "answer"),
    [
        ([], MESSAGE, OPEN, []),
        ([], CLOSE, HALF_CLOSED, []),
        ([], LAST, HALF_CLOSED, []),
        ([CLOSE], MESSAGE, HALF_CLOSED, ["data handling error: ttrpc: stream closed"]),
        ([CLOSE], CLOSE, HALF_CLOSED, []),
    ],
    ids=["message", "close", "last message", "message after the close", "close again"],
)
@pytest.mark.parametrize("method", ["Sum", "Chat"])
def test_data_of_a_client_that_streams(
    method: str, before: list[bytes], received: bytes, after: State, answer: list[str]
) -> None:
    core, stream = opened(method)
    core.receive_data(b"".join(before))
    core.receive_data(received)
    assert stream.state is after
    assert answers(core) == answer


@pytest.mark.parametrize("received", [MESSAGE, CLOSE, LAST])
@pytest.mark.parametrize("method", ["Echo", "Count"])
def test_data_of_a_client_that_does_not_stream_changes_nothing(
    method: str, received: bytes
) -> None:
    core, stream = opened(method)
    assert core.receive_data(received) == []
    assert stream.state is HALF_CLOSED
    assert answers(core) == []


@pytest.mark.parametrize("received", [MESSAGE, CLOSE, LAST])
@pytest.mark.parametrize("method", KINDS)
def test_data_for_an_ended_call_is_dropped(method: str, received: bytes) -> None:
    core, stream = opened(method)
    core.fail(stream, NotFound("gone"))
    core.done(stream)
    core.outbox.take()
    assert core.receive_data(received) == []
    assert stream.state is ENDED
    assert answers(core) == []


@pytest.mark.parametrize("received", [data(7, "x"), data(7, flags=RC | ND)])
def test_data_for_a_call_that_never_was_is_refused(received: bytes) -> None:
    core, _stream = opened("Chat")
    core.receive_data(received)
    assert answers(core) == ["StreamID is no longer active"]


@pytest.mark.parametrize("before", [[], [CLOSE]], ids=["open", "half-closed"])
def test_each_end_of_the_server_s_closes_both_directions(before: list[bytes]) -> None:
    for end in (ServerCore.finish, lambda core, stream: core.fail(stream, NotFound("no"))):
        core, stream = opened("Chat")
        core.receive_data(b"".join(before))
        end(core, stream)
        assert stream.state is ENDED
        with pytest.raises(StreamClosed):
            core.send(stream, b"late")


@pytest.mark.parametrize("received", [CLOSE, LAST, RESPONSE, FAILURE])
@pytest.mark.parametrize("closed", [False, True], ids=["open", "half-closed"])
def test_each_end_that_a_client_receives_closes_both_directions(
    received: bytes, closed: bool
) -> None:
    core = ClientCore()
    stream = core.open(METHODS["Chat"], METHODS["Chat"].prefix)
    if closed:
        core.close_send(stream)
    core.receive_data(received)
    assert stream.state is ENDED
    with pytest.raises(StreamClosed):
        core.send(stream, b"late")


def test_messages_of_the_server_leave_the_state_and_stay_after_the_end() -> None:
    core = ClientCore()
    stream = core.open(METHODS["Chat"], METHODS["Chat"].prefix)
    states = []
    for closes in (False, True):
        if closes:
            core.close_send(stream)
        core.receive_data(MESSAGE)
        states.append(stream.state)
    assert states == [OPEN, HALF_CLOSED]
    core.receive_data(CLOSE)
    assert [core.take(stream) for _ in range(3)] == [MESSAGE[10:], MESSAGE[10:], None]


@pytest.mark.parametrize("received", [MESSAGE, CLOSE, RESPONSE])
def test_client_ignores_frames_of_no_call_and_of_an_ended_one(received: bytes) -> None:
    core = ClientCore()
    assert core.receive_data(received) == []
    stream = core.open(METHODS["Chat"], METHODS["Chat"].prefix)
    core.receive_data(CLOSE)
    assert core.receive_data(received) == []
    assert stream.state is ENDED
