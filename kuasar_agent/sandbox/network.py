"""The guest's network: interfaces and routes, set off the hub.

Everything happens in the network namespace of the agent, which the containers share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from kuasar_agent.blocking import off_hub
from kuasar_agent.devices import Devices
from kuasar_agent.errors import DeadlineExceeded, NotFound, Unknown
from kuasar_agent.linux import rtnetlink
from kuasar_agent.linux.rtnetlink import RouteSocket
from kuasar_agent.log import get_logger
from kuasar_agent.sandbox import interfaces, routes
from kuasar_agent.sandbox.interfaces import Interface
from kuasar_agent.sandbox.routes import Route

log = get_logger(__name__)

T = TypeVar("T")


def warm_up() -> None:
    """Import now what the first call would pay for; blocking, and a failure is only logged."""
    try:
        rtnetlink.warm_up()
    except ImportError as error:
        log.error("network set-up will not work", error=error)


class Network:
    """Sets interfaces and routes; callers take turns."""

    def __init__(self, devices: Devices, rescan: Callable[[], None] = lambda: None) -> None:
        """`rescan` has the kernel look for cards that were plugged in; it may block."""
        self._devices = devices
        self._rescan = rescan

    def update_interfaces(self, wanted: Sequence[Interface], deadline: float | None) -> None:
        """Make interfaces what they should be, waiting for those that are not plugged in yet.

        Raises NotFound when one has not come by `deadline` (on time.monotonic()'s clock, 10 s from
        now without one), InvalidArgument or Unknown with the name of the interface at fault.
        """
        interfaces.check_distinct(wanted)
        self._await(wanted, deadline)
        _with_socket(lambda socket: interfaces.configure(socket, wanted))

    def update_routes(self, wanted: Sequence[Route]) -> None:
        """Make the main table what it should be. Raises NotFound or Unknown with the route."""
        _with_socket(lambda socket: routes.replace(socket, wanted))

    def _await(self, wanted: Sequence[Interface], deadline: float | None) -> None:
        if not _missing(wanted):
            return
        off_hub(self._rescan)
        what = "NIC " + ", ".join(each.mac for each in wanted)
        try:
            self._devices.wait_until(lambda: None if _missing(wanted) else True, what, deadline)
        except DeadlineExceeded:
            if missing := _missing(wanted):
                first = missing[0]
                text = f"interface {first.name}: Link not found (Address: {first.mac})"
                raise NotFound(text) from None


def _missing(wanted: Sequence[Interface]) -> list[Interface]:
    links = _with_socket(interfaces.list_links)
    return [each for each in wanted if interfaces.find_link(links, each.mac) is None]


def _with_socket(action: Callable[[RouteSocket], T]) -> T:
    def act() -> T:
        with RouteSocket() as socket:
            return action(socket)

    try:
        return off_hub(act)
    except OSError as error:
        raise Unknown(f"network: {error}") from None
