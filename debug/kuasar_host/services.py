"""The agent's vsock ports, and descriptors of the RPC services on the first of them."""

from __future__ import annotations

from kuasar_agent.api import agent_pb2, sandbox_pb2, task_pb2

TASK_PORT = 1024
"""ttrpc."""
DEBUG_PORT = 1025
"""Shells; served with `task.debug` only."""

TASK = task_pb2.DESCRIPTOR.services_by_name["Task"]
SANDBOX = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]
AGENT = agent_pb2.DESCRIPTOR.services_by_name["Agent"]
