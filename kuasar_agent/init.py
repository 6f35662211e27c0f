"""The agent as the first process of a guest.

PID 1 that ends takes the kernel with it: `main` never returns, whatever goes wrong.
"""

from __future__ import annotations

import gc
import time

from kuasar_agent.boot.timeline import Timeline, now_ms
from kuasar_agent.linux.files import write_text
from kuasar_agent.log import get_logger

log = get_logger(__name__)

_RETRY = 1.0
_PCI_RESCAN = "/sys/bus/pci/rescan"


def main() -> None:
    """Set the system up, serve, and keep trying should that fail."""
    timeline = Timeline()
    while True:
        try:
            _serve(timeline)
        except BaseException:
            log.exception("the agent stopped, it starts again")
            gc.enable()
        time.sleep(_RETRY)


def _serve(timeline: Timeline) -> None:
    # What start-up makes stays: to look for garbage in it would take a tenth of the imports' time.
    gc.disable()
    from kuasar_agent.boot.sequence import boot

    config = boot(timeline)
    with timeline.step("imports"):
        with timeline.step("import gevent"):
            import gevent

        from kuasar_agent.agent import Agent, ObserveSettings, Settings, describe, warm_up
        from kuasar_agent.blocking import off_hub
        from kuasar_agent.linux import cgroup, modules
        from kuasar_agent.sandbox.hotadd import HotAdd
        from kuasar_agent.ttrpc import listen

    with timeline.step("serve"):
        agent = Agent(
            Settings(
                state="/run/kuasar/state",
                listen=lambda port: listen(f"vsock://-1:{port}"),
                host_only=config.vsock_peers == "host",
                runtime=config.runtime,
                rescan=rescan_pci,
                debug_shell=config.debug_shell if config.debug else "",
                drain_grace=config.drain_grace,
                all_events=config.events == "all",
                observe=ObserveSettings(timeline, config.enable_tracing, config.trace_endpoint),
            )
        )
        agent.start()
    gc.enable()
    log.info(
        "serving",
        **describe(),
        cgroup=f"v{cgroup.version()}",
        address="vsock://-1:1024",
        ms=f"{now_ms():.1f}",
    )
    gevent.spawn(off_hub, warm_up)
    gevent.spawn(off_hub, modules.load_list, modules.LATE_LIST)
    hot_add = HotAdd()
    agent.devices.watch(hot_add.notice)
    gevent.spawn(hot_add.run)
    agent.run()


def rescan_pci() -> None:
    """Let disks and network cards appear that the host plugged for a container."""
    try:
        write_text(_PCI_RESCAN, "1")
    except OSError:
        # No PCI bus: with virtio-mmio nothing can be plugged.
        pass
