"""The agent as the first process of a guest.

The kernel panics when its first process ends: `main` never returns, whatever fails.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

from kuasar_agent.boot.timeline import Timeline, now_ms
from kuasar_agent.linux.files import write_text
from kuasar_agent.log import get_logger

if TYPE_CHECKING:
    from kuasar_agent.agent import Agent

log = get_logger(__name__)

_RETRY = 1.0
"""Seconds between the failure of the agent and its next start."""

_PCI_RESCAN = "/sys/bus/pci/rescan"


def main() -> None:
    """Set the guest up and serve; start again after a failure."""
    timeline = Timeline()
    while True:
        try:
            _serve(timeline)
        except BaseException:
            log.exception("the agent stopped, it starts again")
            gc.enable()
        time.sleep(_RETRY)


def _serve(timeline: Timeline) -> None:
    # Start-up makes no garbage worth the search, which would take a tenth of the imports' time.
    gc.disable()
    from kuasar_agent.boot.sequence import boot

    config = boot(timeline)
    with timeline.step("imports"):
        with timeline.step("import gevent"):
            import gevent  # noqa: F401

        from kuasar_agent.agent import Agent, Settings, describe
        from kuasar_agent.linux import cgroup
        from kuasar_agent.ttrpc import listen

    with timeline.step("serve"):
        agent = Agent(
            Settings(
                listen=lambda port: listen(f"vsock://-1:{port}"),
                config=config,
                rescan=rescan_pci,
                timeline=timeline,
            )
        )
        agent.start()
    gc.enable()
    version = f"v{cgroup.version()}"
    ms = f"{now_ms():.1f}"
    log.info("serving", **describe(), cgroup=version, address="vsock://-1:1024", ms=ms)
    _prepare_for_containers(agent)
    agent.run()


def _prepare_for_containers(agent: Agent) -> None:
    """Start the work that serving does not need, in greenlets and threads."""
    import gevent

    from kuasar_agent.agent import warm_up
    from kuasar_agent.blocking import off_hub
    from kuasar_agent.linux import modules
    from kuasar_agent.sandbox.hotadd import HotAdd

    gevent.spawn(off_hub, warm_up)
    gevent.spawn(off_hub, modules.load_list, modules.LATE)
    gevent.spawn(off_hub, modules.make_nodes)
    hot_add = HotAdd()
    agent.devices.watch(hot_add.notice)
    gevent.spawn(hot_add.run)


def rescan_pci() -> None:
    """Have the kernel find the disks and network cards that the host plugged in.

    Blocks: a thread.
    """
    try:
        write_text(_PCI_RESCAN, "1")
    except OSError:
        # No PCI bus: nothing can be plugged into virtio-mmio.
        pass
