"""A container that ends while the runtime still starts it has its exit recorded all the same."""

from __future__ import annotations

import gevent.pool

from kuasar_agent.api.task_types_pb2 import STOPPED
from tests.support.agent import Agent

CONTAINERS = 200


def test_the_exit_of_a_container_that_ends_at_once_is_never_lost(agent: Agent) -> None:
    def live(number: int) -> list[int]:
        id = agent.bundle("sh", "-c", f"exit {number}")
        pid = agent.create(id)
        if number % 2:
            waiter = gevent.spawn(agent.wait, id)
            agent.start(id)
            exit = waiter.get()
        else:
            agent.start(id)
            exit = agent.wait(id)
        state = agent.state_of(id)
        assert (state.pid, state.status) == (pid, STOPPED)
        return [exit.exit_status, state.exit_status, agent.delete(id).exit_status]

    # a few at a time, so that exits fall into each other's runtime commands
    reported = gevent.pool.Pool(4).map(live, range(CONTAINERS))
    assert reported == [[number] * 3 for number in range(CONTAINERS)]
