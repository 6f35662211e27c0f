"""What happened to containers, for whoever asks: an ordered, bounded queue of events.

Publishing never blocks: the lifecycle call that publishes may hold a container's lock, and there
may be nobody who listens. When the queue is full the oldest event is dropped and counted.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import gevent.event
from google.protobuf.message import Message

from kuasar_agent.api import events_pb2
from kuasar_agent.log import get_logger

log = get_logger(__name__)

NAMESPACE = "k8s.io"
OOM_TOPIC = "/tasks/oom"
LIMIT = 1024
"""Events kept for a host that does not ask."""

Publish = Callable[[str, Message], None]
"""Takes a topic such as `/tasks/exit` and a message of containerd.events."""


class EventQueue:
    """Every event goes to exactly one of those who take."""

    def __init__(self, *, all_topics: bool = False, limit: int = LIMIT) -> None:
        """Without `all_topics` only OOM events are kept: the host forwards nothing else."""
        self.dropped = 0
        """Events that made room for later ones."""
        self.published = 0
        """Sequence number of the newest event, whether or not it was kept."""
        self._all_topics = all_topics
        self._limit = limit
        self._queue: deque[events_pb2.Envelope] = deque()
        self._available = gevent.event.Event()

    def publish(self, topic: str, event: Message) -> None:
        """Queue an event; never blocks, never raises."""
        self.published += 1
        log.debug("event", topic=topic, sequence=self.published)
        if topic != OOM_TOPIC and not self._all_topics:
            return
        if len(self._queue) >= self._limit:
            self._queue.popleft()
            self.dropped += 1
        envelope = events_pb2.Envelope(namespace=NAMESPACE, topic=topic)
        envelope.timestamp.FromNanoseconds(time.time_ns())
        # containerd compares bare names, which Any.Pack does not write.
        envelope.event.type_url = event.DESCRIPTOR.full_name
        envelope.event.value = event.SerializeToString()
        self._queue.append(envelope)
        self._available.set()

    def take(self) -> events_pb2.Envelope:
        """The oldest event, waiting for one; nothing is taken when the waiting greenlet is killed.

        The caller must answer without yielding in between, or put back what it could not deliver.
        """
        while not self._queue:
            self._available.clear()
            self._available.wait()
        return self._queue.popleft()

    def put_back(self, envelope: events_pb2.Envelope) -> None:
        """Return an event that did not reach anybody; it is the next one to be taken."""
        self._queue.appendleft(envelope)
        self._available.set()
