"""The guest's network: interfaces and routes, set in a thread.

Everything happens in the network namespace of the agent, which the containers share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from kuasar_agent.blocking import off_hub
from kuasar_agent.devices import Devices
from kuasar_agent.errors import DeadlineExceeded, Unknown
from kuasar_agent.linux import rtnetlink
from kuasar_agent.linux.rtnetlink import RouteSocket
from kuasar_agent.log import get_logger
from kuasar_agent.sandbox import interfaces, routes
from kuasar_agent.sandbox.interfaces import Interface
from kuasar_agent.sandbox.routes import Route

log = get_logger(__name__)

T = TypeVar("T")


def warm_up() -> None:
    """Import the modules that the first call needs; log a failure.

    Blocks: a thread.
    """
    try:
        rtnetlink.warm_up()
    except ImportError as error:
        log.error("network set-up will not work", error=error)


class Network:
    """The setting of interfaces and routes. Its caller makes one call at a time."""

    def __init__(self, devices: Devices, rescan: Callable[[], None] = lambda: None) -> None:
        """Take `rescan`, which has the kernel look for plugged cards and is called in a thread."""
        self._devices = devices
        self._rescan = rescan

    def update_interfaces(self, wanted: Sequence[Interface], deadline: float | None) -> list[str]:
        """Give interfaces their wanted properties; wait for those that are not plugged in yet.

        Args:
            deadline: on time.monotonic()'s clock; None stands for 10 s from now.

        Returns:
            The addresses that were left out because IPv6 is off.

        Raises:
            NotFound: an interface was not plugged in by the deadline.
            InvalidArgument: two have the same name or hardware address.
            Unknown: the kernel refuses; the message names the interface.

        Blocks: the greenlet.
        """
        interfaces.check_distinct(wanted)
        self._await(wanted, deadline)
        return _with_socket(lambda socket: interfaces.configure(socket, wanted))

    def update_routes(self, wanted: Sequence[Route]) -> list[str]:
        """Make the main table hold the wanted routes.

        Returns:
            The routes that were left out because IPv6 is off.

        Raises:
            NotFound: the interface of a route does not exist.
            Unknown: the kernel refuses; the message names the route.

        Blocks: the greenlet.
        """
        return _with_socket(lambda socket: routes.replace(socket, wanted))

    def _await(self, wanted: Sequence[Interface], deadline: float | None) -> None:
        missing = _missing(wanted)
        if not missing:
            return

        def all_plugged() -> bool | None:
            nonlocal missing
            missing = _missing(wanted)
            return None if missing else True

        off_hub(self._rescan)
        device = "NIC " + ", ".join(each.mac for each in wanted)
        try:
            self._devices.wait_until(all_plugged, device, deadline)
        except DeadlineExceeded:
            # Not looked up anew: a kernel that is slow to answer would use up the caller's time.
            raise interfaces.no_link(missing[0]) from None


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
