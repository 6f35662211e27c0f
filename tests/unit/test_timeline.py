"""The record of start-up's steps."""

from __future__ import annotations

import pytest

from kuasar_agent.boot.timeline import Timeline, now_ms


def test_steps_are_kept_in_order_on_one_clock() -> None:
    timeline = Timeline()
    before = now_ms()
    with timeline.step("a"):
        inside = now_ms()
    with timeline.step("b"):
        pass
    a, b = timeline.steps
    assert [a.name, b.name] == ["a", "b"]
    assert before <= a.start_ms <= inside <= a.start_ms + a.ms <= b.start_ms


def test_a_step_that_fails_is_timed_and_its_error_passed_on() -> None:
    timeline = Timeline()
    with pytest.raises(ValueError, match="x"), timeline.step("a"):
        raise ValueError("x")
    assert [step.name for step in timeline.steps] == ["a"]
