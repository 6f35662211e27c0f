"""What the host sets up once for the pod, and may set up again: the same call has no new effect."""

from __future__ import annotations

from collections.abc import Sequence

from gevent.lock import BoundedSemaphore

from kuasar_agent.blocking import off_hub
from kuasar_agent.linux.files import read_text
from kuasar_agent.log import get_logger
from kuasar_agent.sandbox import sysctls
from kuasar_agent.sandbox.interfaces import Interface
from kuasar_agent.sandbox.namespaces import PodNamespaces
from kuasar_agent.sandbox.network import Network
from kuasar_agent.sandbox.podconfig import PodConfig
from kuasar_agent.sandbox.routes import Route

log = get_logger(__name__)


class Pod:
    """Sysctls, namespaces and network; one call at a time."""

    def __init__(self, namespaces: PodNamespaces, network: Network, state: str) -> None:
        """`state` is the shared directory, where the host puts the file `hostname`."""
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
        """Sysctls, then namespaces, interfaces and routes; StatusError from the step that failed.

        `deadline` (on time.monotonic()'s clock) bounds the waiting for interfaces.
        """
        values = sysctls.split(config.sysctls)
        with self._turn:
            off_hub(sysctls.write, values.root)
            hostname = off_hub(_read_hostname, f"{self._state}/hostname")
            self._namespaces.ensure(
                share_pid=config.share_pid, hostname=hostname, values=values.pod
            )
            self._network.update_interfaces(interfaces, deadline)
            self._network.update_routes(routes)

    def update_interfaces(self, interfaces: Sequence[Interface], deadline: float | None) -> None:
        """See Network.update_interfaces."""
        with self._turn:
            self._network.update_interfaces(interfaces, deadline)

    def update_routes(self, routes: Sequence[Route]) -> None:
        """See Network.update_routes."""
        with self._turn:
            self._network.update_routes(routes)


def _read_hostname(path: str) -> str:
    try:
        return read_text(path).strip()
    except OSError as error:
        log.warning("the pod has no hostname", error=error)
        return ""
