"""Pauses and silence, by a clock that the test moves."""

from __future__ import annotations

import pytest

from kuasar_agent.stdio.pacing import (
    BURST,
    FREE_MESSAGES,
    GATHER,
    LONG_GAP,
    MOST_UNPAUSED,
    PLENTY,
    SHORT_GAP,
    SOME_MESSAGES,
    MessagePause,
    ReadPause,
    Silence,
)
from kuasar_agent.stdio.pipes import CHUNK


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_read_is_not_put_off() -> None:
    assert ReadPause(Clock()).before_read() == 0


def test_a_read_that_follows_a_small_one_at_once_is_put_off() -> None:
    pause = ReadPause(Clock())
    pause.before_read()
    pause.after_read(10)
    assert pause.before_read() == GATHER


def test_a_read_a_while_after_a_small_one_is_not_put_off() -> None:
    clock = Clock()
    pause = ReadPause(clock)
    pause.before_read()
    pause.after_read(10)
    clock.now += BURST
    assert pause.before_read() == 0


def test_a_read_after_one_that_was_worth_it_is_not_put_off() -> None:
    pause = ReadPause(Clock())
    pause.before_read()
    pause.after_read(PLENTY)
    assert pause.before_read() == 0


def reads_between_pauses(pause: ReadPause) -> int:
    """The reads that are not put off until one is, of a process with small writes."""
    count = 0
    while pause.before_read() == 0:
        pause.after_read(10)
        count += 1
    return count


def test_a_process_that_fills_its_pipe_in_each_pause_is_held_up_ever_less() -> None:
    pause = ReadPause(Clock())
    assert reads_between_pauses(pause) == 1
    counts = []
    for _ in range(12):
        pause.after_read(CHUNK)
        # A full pipe is followed by small reads: the process runs again.
        counts.append(reads_between_pauses(pause))
    wanted = [min(2**n, MOST_UNPAUSED) + 1 for n in range(12)]
    assert counts == wanted


def test_a_pause_that_did_not_fill_the_pipe_is_followed_by_another() -> None:
    pause = ReadPause(Clock())
    assert reads_between_pauses(pause) == 1
    pause.after_read(CHUNK)
    assert reads_between_pauses(pause) == 2
    pause.after_read(10)
    assert reads_between_pauses(pause) == 0


def unread(pause: MessagePause, count: int) -> MessagePause:
    for _ in range(count):
        pause.after_send()
    return pause


def test_the_first_messages_are_not_put_off() -> None:
    clock = Clock()
    pause = unread(MessagePause(prompt=False, clock=clock), FREE_MESSAGES - 1)
    assert pause.before_send() <= 0
    assert unread(pause, 1).before_send() == pytest.approx(SHORT_GAP)
    clock.now += SHORT_GAP
    assert pause.before_send() <= 0


def test_many_messages_without_a_grant_are_put_off_for_long_unless_they_are_awaited() -> None:
    clock = Clock()
    assert unread(MessagePause(False, clock), SOME_MESSAGES).before_send() == LONG_GAP
    awaited = unread(MessagePause(True, clock), SOME_MESSAGES)
    assert awaited.before_send() == pytest.approx(SHORT_GAP)


def test_a_grant_speaks_for_the_messages_before_the_grant_before_it() -> None:
    pause = unread(MessagePause(False, Clock()), FREE_MESSAGES)
    pause.after_grant()
    assert pause.before_send() > 0
    pause.after_grant()
    assert pause.before_send() <= 0


@pytest.mark.parametrize(("prompt", "stands_still"), [(False, 9.0), (True, 1.8)])
def test_a_client_that_stands_still_has_room_for_every_message(
    prompt: bool, stands_still: float
) -> None:
    clock = Clock()
    pause, began, messages = MessagePause(prompt, clock), clock.now, 0
    while True:
        clock.now += max(0.0, pause.before_send())
        # The client drops the stream a second after its queue of 64 was full.
        if clock.now - began > stands_still - 1:
            break
        pause.after_send()
        messages += 1
    assert messages <= 64


def test_silence_is_the_time_since_the_number_changed() -> None:
    clock = Clock()
    silence = Silence(clock)
    silence.look(5)
    clock.now += 2
    silence.look(5)
    assert silence.seconds == 2
    silence.look(6)
    assert silence.seconds == 0
