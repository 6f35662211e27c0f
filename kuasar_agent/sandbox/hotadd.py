"""Processors and memory that the host adds come online by themselves.

Sources: the kernel's core-api/cpu_hotplug.rst and admin-guide/mm/memory-hotplug.rst.
"""

from __future__ import annotations

import os
import re

from gevent.queue import SimpleQueue

from kuasar_agent.blocking import off_hub
from kuasar_agent.linux.files import read_text, write_text
from kuasar_agent.linux.uevent import Uevent
from kuasar_agent.log import get_logger

log = get_logger(__name__)

_SYSTEM = "/devices/system"
_KINDS = {"cpu": re.compile(r"cpu\d+"), "memory": re.compile(r"memory\d+")}


class HotAdd:
    """Brings what is offline online, one after the other."""

    def __init__(self, sysfs: str = "/sys") -> None:
        self._sysfs = sysfs
        # Bounded by what the machine has room for.
        self._pending: SimpleQueue[str] = SimpleQueue()

    def notice(self, event: Uevent) -> None:
        """Remember a processor or memory block that was added; never blocks."""
        kind = _KINDS.get(event.subsystem)
        if event.action == "add" and kind and kind.fullmatch(event.devpath.rpartition("/")[2]):
            self._pending.put(event.devpath)

    def run(self) -> None:
        """Serve for ever, beginning with what was added before anybody looked."""
        for path in off_hub(self._list):
            off_hub(self.bring_online, path)
        while True:
            off_hub(self.bring_online, self._pending.get())

    def bring_online(self, devpath: str) -> None:
        """Write to sysfs unless it is online; a failure is logged."""
        path = f"{self._sysfs}{devpath}/online"
        try:
            if read_text(path).strip() != "0":
                return
            write_text(path, "1")
        except FileNotFoundError:
            return  # a processor that cannot be offline, or it has gone already
        except OSError as error:
            log.warning("hot-added device stays offline", device=devpath, error=error)
            return
        log.info("hot-added device is online", device=devpath.rpartition("/")[2])

    def _list(self) -> list[str]:
        found = []
        for kind, name in _KINDS.items():
            try:
                names = os.listdir(f"{self._sysfs}{_SYSTEM}/{kind}")
            except OSError:
                continue  # a kernel without hot-plug
            found += [f"{_SYSTEM}/{kind}/{entry}" for entry in names if name.fullmatch(entry)]
        return sorted(found)
