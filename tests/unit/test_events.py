"""The event queue: bounded, ordered, each event to one taker."""

from __future__ import annotations

import gevent

from kuasar_agent.api import task_events_pb2
from kuasar_agent.events import OOM_TOPIC, EventQueue


def oom(id: str) -> task_events_pb2.TaskOOM:
    return task_events_pb2.TaskOOM(container_id=id)


def test_events_come_in_order_with_the_bare_type_name() -> None:
    queue = EventQueue()
    for id in ("a", "b"):
        queue.publish(OOM_TOPIC, oom(id))
    first, second = queue.take(), queue.take()
    assert (first.topic, first.namespace) == ("/tasks/oom", "k8s.io")
    assert first.event.type_url == "containerd.events.TaskOOM"
    assert task_events_pb2.TaskOOM.FromString(first.event.value).container_id == "a"
    assert task_events_pb2.TaskOOM.FromString(second.event.value).container_id == "b"


def test_other_topics_are_kept_only_when_asked_for() -> None:
    queue, everything = EventQueue(), EventQueue(all_topics=True)
    for each in (queue, everything):
        each.publish("/tasks/exit", task_events_pb2.TaskExit(container_id="a"))
        each.publish(OOM_TOPIC, oom("a"))
    assert queue.take().topic == OOM_TOPIC
    assert [everything.take().topic for _ in range(2)] == ["/tasks/exit", OOM_TOPIC]


def test_a_full_queue_drops_the_oldest() -> None:
    queue = EventQueue(limit=2)
    for id in "abc":
        queue.publish(OOM_TOPIC, oom(id))
    assert (queue.dropped, queue.published) == (1, 3)
    assert task_events_pb2.TaskOOM.FromString(queue.take().event.value).container_id == "b"


def test_each_event_goes_to_one_taker_and_a_killed_one_takes_none() -> None:
    queue = EventQueue()
    takers = [gevent.spawn(queue.take) for _ in range(3)]
    gevent.sleep(0)
    takers[0].kill()
    for id in "ab":
        queue.publish(OOM_TOPIC, oom(id))
    gevent.joinall(takers, timeout=5)
    taken = [taker.get().event.value for taker in takers[1:]]
    assert sorted(taken) == sorted(oom(id).SerializeToString() for id in "ab")


def test_what_was_not_delivered_is_the_next_to_be_taken() -> None:
    queue = EventQueue()
    for id in "ab":
        queue.publish(OOM_TOPIC, oom(id))
    first = queue.take()
    queue.put_back(first)
    assert queue.take() == first
