"""Processors and memory that the host adds are brought online.

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
    """Brings added processors and memory blocks online, one after the other."""

    def __init__(self, sysfs: str = "/sys") -> None:
        self._sysfs = sysfs
        # Bounded by the number of processors and memory blocks of the machine.
        self._pending: SimpleQueue[str] = SimpleQueue()

    def notice(self, event: Uevent) -> None:
        """Queue the processor or memory block of an `add` event.

        Blocks: never.
        """
        kind = _KINDS.get(event.subsystem)
        if event.action == "add" and kind and kind.fullmatch(event.devpath.rpartition("/")[2]):
            self._pending.put(event.devpath)

    def run(self) -> None:
        """Serve the queue without end, beginning with the devices that were added before.

        Blocks: the greenlet.
        """
        for path in off_hub(self._list):
            off_hub(self.bring_online, path)
        while True:
            off_hub(self.bring_online, self._pending.get())

    def bring_online(self, devpath: str) -> None:
        """Bring a device online by sysfs unless it is; log a failure.

        Blocks: a thread.
        """
        path = f"{self._sysfs}{devpath}/online"
        try:
            if read_text(path).strip() != "0":
                return
            write_text(path, "1")
        except FileNotFoundError:
            return  # a processor that cannot be offline, or that was removed again
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
                continue  # a kernel without hot-plugging
            found += [f"{_SYSTEM}/{kind}/{entry}" for entry in names if name.fullmatch(entry)]
        return sorted(found)
