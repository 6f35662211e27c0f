"""The events of containers for the host: an ordered, bounded queue.

Publishing never blocks: the lifecycle call that publishes may hold a container's lock, and the host
may not listen. A full queue drops its oldest event and counts it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import gevent.event
from google.protobuf.message import Message

from kuasar_agent.api import events_pb2
from kuasar_agent.containerd import NAMESPACE, pack
from kuasar_agent.log import get_logger

log = get_logger(__name__)

OOM_TOPIC = "/tasks/oom"
LIMIT = 1024
"""Events kept for a host that does not call GetEvents."""

Publish = Callable[[str, Message], None]
"""Takes a topic such as `/tasks/exit` and a message of containerd.events."""


class EventQueue:
    """A queue in which each event goes to exactly one caller."""

    def __init__(self, *, all_topics: bool = False, limit: int = LIMIT) -> None:
        """Without `all_topics` only OOM events are kept: Kuasar's host forwards no other."""
        self.dropped = 0
        """Events that were dropped from the full queue."""
        self.published = 0
        """Sequence number of the newest event, whether or not it was kept."""
        self._all_topics = all_topics
        self._limit = limit
        self._queue: deque[events_pb2.Envelope] = deque()
        self._available = gevent.event.Event()

    def publish(self, topic: str, event: Message) -> None:
        """Queue an event; never raise.

        Blocks: never.
        """
        self.published += 1
        log.debug("event", topic=topic, sequence=self.published)
        if topic != OOM_TOPIC and not self._all_topics:
            return
        if len(self._queue) >= self._limit:
            self._queue.popleft()
            self.dropped += 1
        envelope = events_pb2.Envelope(namespace=NAMESPACE, topic=topic, event=pack(event))
        envelope.timestamp.FromNanoseconds(time.time_ns())
        self._queue.append(envelope)
        self._available.set()

    def take(self) -> events_pb2.Envelope:
        """Remove and return the oldest event; remove none when the waiting greenlet is killed.

        The caller must either answer without yielding in between, or put back an event that it
        could not deliver.

        Blocks: the greenlet.
        """
        while not self._queue:
            self._available.clear()
            self._available.wait()
        return self._queue.popleft()

    def put_back(self, envelope: events_pb2.Envelope) -> None:
        """Return an undelivered event to the head of the queue."""
        self._queue.appendleft(envelope)
        self._available.set()
