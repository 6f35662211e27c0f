"""A start-up as the agent reports it."""

from __future__ import annotations

from kuasar_agent.api import agent_pb2


def boot_report() -> agent_pb2.BootResponse:
    """Return a start-up of 2.45 s with kernel marks and nested steps."""
    step, mark = agent_pb2.BootStep, agent_pb2.KernelMark
    return agent_pb2.BootResponse(
        steps=[
            step(name="mounts", start_ms=2000, ms=20),
            step(name="import gevent", start_ms=2030, ms=300),
            step(name="imports", start_ms=2025, ms=400),
            step(name="serve", start_ms=2430, ms=10),
        ],
        serving_ms=2450,
        marks=[
            mark(at_ms=500, text="Trying to unpack rootfs image as initramfs..."),
            mark(at_ms=900, text="Freeing initrd memory: 13M"),
            mark(at_ms=1200, text="Run /init as init process"),
        ],
    )
