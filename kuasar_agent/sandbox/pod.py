"""The set-up of the pod, which the host may repeat: the same call again changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from gevent.lock import BoundedSemaphore

from kuasar_agent.blocking import off_hub
from kuasar_agent.linux import sysctls
from kuasar_agent.linux.files import read_text
from kuasar_agent.log import get_logger
from kuasar_agent.sandbox.interfaces import Interface
from kuasar_agent.sandbox.namespaces import PodNamespaces
from kuasar_agent.sandbox.network import Network
from kuasar_agent.sandbox.podconfig import PodConfig
from kuasar_agent.sandbox.routes import Route

log = get_logger(__name__)


class Pod:
    """Sysctls, namespaces and network of the pod; one call at a time."""

    def __init__(self, namespaces: PodNamespaces, network: Network, state: str) -> None:
        """Take the parts, and the shared directory, where the host puts the file `hostname`."""
        self._namespaces = namespaces
        self._network = network
        self._state = state
        self._turn = BoundedSemaphore()

    def set_up(
        self,
        config: PodConfig,
        interfaces: Sequence[Interface],
        routes: Sequence[Route],
        deadline: float | None,
    ) -> None:
        """Write sysctls, then make namespaces, then set interfaces and routes.

        Args:
            deadline: on time.monotonic()'s clock, for the waiting for interfaces.

        Raises:
            AgentError: a step failed; the message names it.

        Blocks: the greenlet.
        """
        values = sysctls.split(config.sysctls)
        with self._turn:
            off_hub(sysctls.write, values.root)
            hostname = off_hub(_read_hostname, f"{self._state}/hostname")
            self._namespaces.ensure(
                share_pid=config.share_pid, hostname=hostname, values=values.pod
            )
            addresses = self._network.update_interfaces(interfaces, deadline)
            _report_left_out(addresses, self._network.update_routes(routes))

    def update_interfaces(self, interfaces: Sequence[Interface], deadline: float | None) -> None:
        """Give interfaces their wanted properties, as Network.update_interfaces does."""
        with self._turn:
            _report_left_out(self._network.update_interfaces(interfaces, deadline), [])

    def update_routes(self, routes: Sequence[Route]) -> None:
        """Make the main table hold the wanted routes, as Network.update_routes does."""
        with self._turn:
            _report_left_out([], self._network.update_routes(routes))


def _report_left_out(addresses: Sequence[str], routes: Sequence[str]) -> None:
    left_out = {"addresses": ", ".join(addresses), "routes": ", ".join(routes)}
    if any(left_out.values()):
        log.warning("IPv6 is off, left out", **left_out)


def _read_hostname(path: str) -> str:
    try:
        return read_text(path).strip()
    except OSError as error:
        log.warning("the pod has no hostname", error=error)
        return ""
