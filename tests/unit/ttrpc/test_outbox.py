"""What of a stream's frames can still be taken back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kuasar_agent.ttrpc.frames import DATA, encode
from kuasar_agent.ttrpc.outbox import Outbox
from kuasar_agent.ttrpc.server_stream import ServerStream
from kuasar_agent.ttrpc.stream import Stream

FIRST, SECOND = encode(1, DATA, 0, b"first"), encode(1, DATA, 0, b"second")
OTHER = encode(3, DATA, 0, b"other")


def filled(*frames: bytes) -> Outbox:
    outbox = Outbox()
    for frame in frames:
        outbox.append(frame)
    return outbox


def test_the_last_frame_of_a_stream_is_taken_back_and_no_other() -> None:
    outbox = filled(FIRST, SECOND, OTHER)
    assert outbox.take_back(1, 1) == 1
    assert outbox.size == len(FIRST + OTHER)
    assert outbox.take() == FIRST + OTHER


def test_a_frame_of_which_a_part_has_left_stays_whole() -> None:
    outbox = filled(FIRST, OTHER)
    outbox.consume(1)
    assert outbox.take_back(1, 1) == 0
    assert outbox.take() == FIRST[1:] + OTHER


def test_a_frame_behind_one_that_has_left_in_part_is_taken_back() -> None:
    outbox = filled(FIRST, SECOND)
    outbox.consume(1)
    assert outbox.take_back(1, 1) == 1
    assert outbox.take() == FIRST[1:]


def test_what_has_left_is_not_taken_back() -> None:
    outbox = filled(FIRST, OTHER)
    outbox.consume(len(FIRST))
    assert outbox.take_back(1, 1) == 0
    assert outbox.take() == OTHER


def test_several_are_taken_back_from_the_end_up_to_one_that_has_left_in_part() -> None:
    outbox = filled(FIRST, SECOND, OTHER, SECOND)
    outbox.consume(1)
    assert outbox.take_back(1, 9) == 2
    assert outbox.size == len(FIRST + OTHER) - 1
    assert outbox.take() == FIRST[1:] + OTHER


@pytest.mark.parametrize(
    ("sent", "closed", "withdrawn"),
    [
        (0, False, 2),
        (1, False, 1),
        (len(FIRST), False, 1),
        (0, True, 2),
        (1, True, 2),
        (len(FIRST), True, 1),
        (len(FIRST) + 1, True, 1),
        (len(FIRST + SECOND), True, 0),
    ],
)
def test_a_part_counts_as_sent_while_the_rest_may_follow(
    sent: int, closed: bool, withdrawn: int
) -> None:
    outbox = filled(FIRST, SECOND)
    outbox.consume(sent)
    core = SimpleNamespace(outbox=outbox)
    connection: Any = SimpleNamespace(core=core, closed=closed)
    stream = Stream(1, SimpleNamespace(client_streaming=True), b"")
    assert ServerStream(stream, connection, None).withdraw(2) == withdrawn
