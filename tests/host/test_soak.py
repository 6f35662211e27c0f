"""The short form of `make soak`."""

from __future__ import annotations

from tests.soak.lives import Lives, judge
from tests.support.agent import Agent


def test_nothing_grows_with_the_number_of_containers_and_execs(agent: Agent) -> None:
    lives = Lives(agent, 8)
    lives.containers(30)
    lives.execs(30)
    before = lives.sample("before")
    lives.containers(60)
    lives.execs(100)
    judge([before, lives.sample("after")])
