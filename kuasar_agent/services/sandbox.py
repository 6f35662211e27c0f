"""`grpc.SandboxService`: what Kuasar's sandboxer asks of the guest as a whole."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import sandbox_pb2
from kuasar_agent.ttrpc import Context

SERVICE = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]


class SandboxService:
    """Handlers of the sandbox service."""

    def check(self, ctx: Context, request: sandbox_pb2.CheckRequest) -> Empty:
        """The agent serves: that it answers is the answer."""
        return Empty()
