"""`kuasar.agent.v1.Agent`: metrics, leak report, start-up and dump of the agent."""

from __future__ import annotations

import os

from google.protobuf.empty_pb2 import Empty

from kuasar_agent import __version__
from kuasar_agent.api import agent_pb2
from kuasar_agent.blocking import off_hub
from kuasar_agent.observe.observer import Observer
from kuasar_agent.ttrpc.context import Context

SERVICE = agent_pb2.DESCRIPTOR.services_by_name["Agent"]


class AgentService:
    """Handlers of the Agent service."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def metrics(self, ctx: Context, request: Empty) -> agent_pb2.MetricsResponse:
        """Return a page in Prometheus' text format."""
        return agent_pb2.MetricsResponse(text=self._observer.metrics())

    def leaks(self, ctx: Context, request: Empty) -> agent_pb2.LeaksResponse:
        """Return the resources that no part of the agent accounts for at this moment."""
        found = self._observer.leaks()
        return agent_pb2.LeaksResponse(leaks=[agent_pb2.Leak(**leak._asdict()) for leak in found])

    def boot(self, ctx: Context, request: Empty) -> agent_pb2.BootResponse:
        """Return the steps of start-up and the kernel's own messages about it."""
        from kuasar_agent.observe.kernel import marks

        return agent_pb2.BootResponse(
            steps=[agent_pb2.BootStep(**step._asdict()) for step in self._observer.steps()],
            serving_ms=self._observer.serving_ms,
            kernel=os.uname().release,
            version=__version__,
            marks=[agent_pb2.KernelMark(**mark._asdict()) for mark in off_hub(marks)],
        )

    def dump(self, ctx: Context, request: Empty) -> agent_pb2.DumpResponse:
        """Return greenlets, threads, containers, streams, descriptors and mounts as log lines."""
        return agent_pb2.DumpResponse(lines=self._observer.dump())
