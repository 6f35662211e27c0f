"""GetEvents as the host uses it: endless, with connections that die."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import gevent
import pytest
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import task_events_pb2
from kuasar_agent.events import LIMIT, OOM_TOPIC, EventQueue
from kuasar_agent.reaper import Reaper
from kuasar_agent.sandbox.pod import Pod
from kuasar_agent.services.sandbox import SERVICE, SandboxService
from kuasar_agent.ttrpc import Client, Server, connect, listen
from tests.support.timeouts import IN_PROCESS
from tests.support.ttrpc.live import until


def no_pod() -> Pod:
    raise AssertionError("no pod is set up here")


@pytest.fixture
def events() -> EventQueue:
    return EventQueue()


@pytest.fixture
def server(events: EventQueue, address: str) -> Iterator[Server]:
    server = Server()
    server.register(SERVICE, SandboxService(events, Reaper(), no_pod))
    server.start(listen(address))
    yield server
    server.close()


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/ttrpc.sock"


def publish(events: EventQueue, *ids: str) -> None:
    for id in ids:
        events.publish(OOM_TOPIC, task_events_pb2.TaskOOM(container_id=id))


def _closers(server: Server) -> list[Callable[[], None]]:
    return [connection.close for connection in server._connections]


def take(client: Client) -> str:
    envelope = client.stub(SERVICE).get_events(Empty(), timeout=IN_PROCESS)
    assert (envelope.topic, envelope.namespace) == ("/tasks/oom", "k8s.io")
    return task_events_pb2.TaskOOM.FromString(envelope.event.value).container_id


def test_each_event_reaches_one_of_several_waiters(
    server: Server, events: EventQueue, address: str
) -> None:
    clients = [connect(address) for _ in range(4)]
    waiting = [gevent.spawn(take, client) for client in clients]
    until(lambda: server.running == 4)
    publish(events, "a", "b", "c", "d")
    assert sorted(each.get(timeout=IN_PROCESS) for each in waiting) == ["a", "b", "c", "d"]
    for client in clients:
        client.close()


def test_a_waiter_whose_connection_died_takes_none(
    server: Server, events: EventQueue, address: str
) -> None:
    # The event comes just before the connection closes, or just after.
    for round in range(20):
        dying = connect(address)
        waiting = gevent.spawn(take, dying)
        until(lambda: server.running == 1)
        steps: list[Callable[[], None]] = [partial(publish, events, str(round)), *_closers(server)]
        for step in steps if round % 2 else reversed(steps):
            step()
        with pytest.raises(Exception, match="closed"):
            waiting.get(timeout=IN_PROCESS)
        dying.close()
        until(lambda: server.running == 0)
        with connect(address) as client:
            assert take(client) == str(round)


def test_10_000_events_that_nobody_takes_block_nothing(
    server: Server, events: EventQueue, address: str
) -> None:
    publish(events, *map(str, range(10_000)))
    with connect(address) as client:
        taken = [take(client) for _ in range(LIMIT)]
    assert taken == [str(number) for number in range(10_000 - LIMIT, 10_000)]
    assert events.dropped == 10_000 - LIMIT
