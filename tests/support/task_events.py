"""containerd's task events, as GetEvents hands them out."""

from __future__ import annotations

from typing import Any

from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import events_pb2
from kuasar_agent.api import task_events_pb2 as messages
from kuasar_agent.services import sandbox
from tests.support.agent import Agent
from tests.support.timeouts import TIMEOUT


def next_event(agent: Agent) -> tuple[str, Any]:
    """Return topic and message of the next event."""
    envelope: events_pb2.Envelope = agent.client.stub(sandbox.SERVICE).get_events(
        Empty(), timeout=TIMEOUT
    )
    name = envelope.event.type_url.removeprefix("containerd.events.")
    return envelope.topic, getattr(messages, name).FromString(envelope.event.value)


def events_until_delete(agent: Agent) -> list[tuple[str, Any]]:
    """Return the events up to the deletion of a container, that one included."""
    events = [next_event(agent)]
    while events[-1][0] != "/tasks/delete":
        events.append(next_event(agent))
    return events
