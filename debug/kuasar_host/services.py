"""Descriptors of the RPC services that the agent offers on vsock port 1024."""

from __future__ import annotations

from kuasar_agent.api import agent_pb2, sandbox_pb2, task_pb2

TASK = task_pb2.DESCRIPTOR.services_by_name["Task"]
SANDBOX = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]
AGENT = agent_pb2.DESCRIPTOR.services_by_name["Agent"]
