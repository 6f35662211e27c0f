"""The parts of the agent that observers read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kuasar_agent.containers.manager import Containers
    from kuasar_agent.events import EventQueue
    from kuasar_agent.reaper import Reaper
    from kuasar_agent.stdio.channels import Channels
    from kuasar_agent.storage.storages import Storages
    from kuasar_agent.ttrpc import Server


class Parts(Protocol):
    """The agent as its observers see it; everything it uses is reachable from here."""

    serving_ms: float
    """Time at which connections were first accepted, on the kernel's clock."""
    reaper: Reaper
    events: EventQueue
    channels: Channels
    storages: Storages
    containers: Containers
    server: Server
