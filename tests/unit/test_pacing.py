"""When a read of a pipe is put off, by a clock that the test moves."""

from __future__ import annotations

from kuasar_agent.stdio.pacing import BURST, GATHER, MOST_UNPAUSED, PLENTY, ReadPause
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
