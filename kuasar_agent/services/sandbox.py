"""`grpc.SandboxService`: what Kuasar's sandboxer asks of the guest as a whole."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import events_pb2, sandbox_pb2
from kuasar_agent.events import EventQueue
from kuasar_agent.ttrpc import Context, cancellable

SERVICE = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]


class SandboxService:
    """Handlers of the sandbox service."""

    def __init__(self, events: EventQueue) -> None:
        self._events = events

    def check(self, ctx: Context, request: sandbox_pb2.CheckRequest) -> Empty:
        """The agent serves: that it answers is the answer."""
        return Empty()

    @cancellable
    def get_events(self, ctx: Context, request: Empty) -> events_pb2.Envelope:
        """The next event; waits for one, and takes none for a caller that is gone."""
        return self._events.take()
