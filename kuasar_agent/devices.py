"""The devices of the guest in a table that follows the kernel's events, and waiting for a device.

The socket for events is opened before sysfs is read for the first time, so that no device plugged
in between is missed. Every look at the table first enters the events that the kernel has sent so
far, so that a removed disk is not mistaken for the next one in its slot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from time import monotonic
from typing import NamedTuple, TypeVar

import gevent
from gevent.event import Event
from gevent.socket import wait_read

from kuasar_agent.errors import DeadlineExceeded
from kuasar_agent.linux.files import read_text
from kuasar_agent.linux.uevent import Overrun, Uevent, UeventSocket
from kuasar_agent.log import get_logger

log = get_logger(__name__)

T = TypeVar("T")

SUBSYSTEMS = ("block", "net", "virtio-ports")
PATIENCE = 10.0
"""Seconds of waiting for a device when the caller sets no deadline."""

_LOOK_AGAIN = 0.25
"""Seconds between two reads of sysfs where the kernel's events are not available."""


class Device(NamedTuple):
    """A disk, a network interface or a virtio-serial port."""

    devpath: str
    """The device's directory below /sys."""
    subsystem: str
    name: str
    """The kernel's name, which is also the name of a disk's or port's node in /dev."""

    @property
    def node(self) -> str:
        """The path of the device's node."""
        return f"/dev/{self.name}"


class Devices:
    """The table of devices by their directory in /sys."""

    def __init__(self, sysfs: str = "/sys") -> None:
        self.sysfs = sysfs
        self._table: dict[str, Device] = {}
        self._socket: UeventSocket | None = None
        self._stale = True
        self._waiters: set[Event] = set()
        self._watchers: list[Callable[[Uevent], None]] = []

    def start(self) -> None:
        """Follow the kernel's events from now on; read sysfs at intervals if there are none."""
        try:
            self._socket = UeventSocket()
        except OSError as error:
            log.warning("no device events, sysfs is polled", error=error)
            return
        gevent.spawn(self._follow, self._socket)

    def watch(self, watcher: Callable[[Uevent], None]) -> None:
        """Call `watcher` with every later event of any subsystem; it must not block or raise."""
        self._watchers.append(watcher)

    def list(self, subsystem: str) -> list[Device]:
        """Return the present devices of a subsystem in the order in which they appeared."""
        self._catch_up()
        return [device for device in self._table.values() if device.subsystem == subsystem]

    def wait_for(
        self,
        subsystem: str,
        accept: Callable[[Device], bool],
        what: str,
        deadline: float | None = None,
    ) -> Device:
        """Wait for a device that `accept` takes and return the first; see `wait_until`."""

        def find() -> Device | None:
            for device in self.list(subsystem):
                if accept(device):
                    return device
            return None

        return self.wait_until(find, what, deadline)

    def wait_until(
        self, probe: Callable[[], T | None], what: str, deadline: float | None = None
    ) -> T:
        """Call `probe` whenever a device came, changed or got its driver, until it finds one.

        Args:
            probe: returns None as long as the device is missing; an exception ends the waiting.
            what: the device's name in the error and the log.
            deadline: on time.monotonic()'s clock; None stands for `PATIENCE` from now.

        Raises:
            DeadlineExceeded: the device did not come in time.

        Blocks: the greenlet.
        """
        started = monotonic()
        deadline = started + PATIENCE if deadline is None else deadline
        logged = False
        changed = Event()
        self._waiters.add(changed)
        try:
            while True:
                changed.clear()
                if (found := probe()) is not None:
                    return found
                remaining = deadline - monotonic()
                if remaining <= 0:
                    waited = monotonic() - started
                    raise DeadlineExceeded(
                        f"timeout waiting for device {what}: not there after {waited:.1f} s"
                    )
                if not logged:
                    log.info("waiting for device", device=what)
                    logged = True
                changed.wait(remaining if self._socket else min(remaining, _LOOK_AGAIN))
        finally:
            self._waiters.discard(changed)

    def apply(self, event: Uevent) -> None:
        """Enter an event into the table and wake the waiting greenlets."""
        if event.subsystem in SUBSYSTEMS:
            self._enter(event)
        for watcher in self._watchers:
            watcher(event)
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            waiter.set()

    def _enter(self, event: Uevent) -> None:
        if event.action == "remove":
            if self._table.pop(event.devpath, None) is not None:
                log.debug("device removed", devpath=event.devpath)
            return
        if event.action == "move":
            self._table.pop(event.properties.get("DEVPATH_OLD", ""), None)
        if event.action in ("add", "move"):
            # Removed first: a device that is added again is the newest in the table's order.
            self._table.pop(event.devpath, None)
            self._table[event.devpath] = _device(event.devpath, event.subsystem, event.properties)
            log.debug("device added", devpath=event.devpath)

    def _follow(self, socket: UeventSocket) -> None:
        while True:
            try:
                self._catch_up()
                wait_read(socket.fileno())
            except Exception as error:
                log.error("device events", error=error)
                gevent.sleep(_LOOK_AGAIN)

    def _catch_up(self) -> None:
        """Enter all events that the kernel has sent so far."""
        if self._stale or self._socket is None:
            self._scan()
        while self._socket is not None:
            try:
                event = self._socket.receive()
            except Overrun:
                log.warning("device events lost, sysfs is read again")
                self._scan()
                continue
            if event is None:
                return
            self.apply(event)

    def _scan(self) -> None:
        self._stale = False
        found = {device.devpath: device for device in self._read_sysfs()}
        known = {path: device for path, device in self._table.items() if path in found}
        changed = self._table != found
        self._table = known | found
        if changed:  # otherwise a waiting greenlet that scans would wake itself without end
            self._wake()

    def _read_sysfs(self) -> Iterator[Device]:
        top = os.path.realpath(self.sysfs)
        for subsystem in SUBSYSTEMS:
            directory = f"{top}/class/{subsystem}"
            try:
                names = sorted(os.listdir(directory))
            except OSError:
                continue  # the driver is not loaded
            for name in names:
                path = os.path.realpath(f"{directory}/{name}")
                try:
                    text = read_text(f"{path}/uevent")
                except OSError:
                    continue  # the device was removed since the directory was read
                pairs = (line.partition("=") for line in text.split("\n"))
                properties = {key: value for key, _, value in pairs}
                yield _device(path.removeprefix(top), subsystem, properties)


def _device(devpath: str, subsystem: str, properties: dict[str, str]) -> Device:
    name = properties.get("DEVNAME") or devpath.rpartition("/")[2]
    return Device(devpath, subsystem, name)
