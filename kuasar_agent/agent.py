"""Composition root: builds the parts of the agent and starts them in order."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable
from socket import VMADDR_CID_HOST
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent
from gevent.socket import socket

from kuasar_agent import __version__
from kuasar_agent.boot.timeline import Timeline, now_ms
from kuasar_agent.containers.manager import Containers
from kuasar_agent.containers.manager import Settings as ContainerSettings
from kuasar_agent.containers.runtime import TIMEOUT as RUNTIME_TIMEOUT
from kuasar_agent.devices import Devices
from kuasar_agent.events import EventQueue
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Reaper, ignore_termination
from kuasar_agent.sandbox.storage import DIRECTORY, Storages
from kuasar_agent.services import sandbox, streaming, task
from kuasar_agent.services.statuses import to_status
from kuasar_agent.stdio.transports import DRAIN_GRACE, PORT_WAIT, Transports
from kuasar_agent.ttrpc import Server, vsock_host_only

if TYPE_CHECKING:
    from kuasar_agent.sandbox.pod import Pod

log = get_logger(__name__)


class ObserveSettings(NamedTuple):
    """What is to be known about start-up, and where traces go."""

    timeline: Timeline | None = None
    trace: bool = False
    """From the start; SIGUSR1 turns it off and on."""
    trace_endpoint: str = ""
    """`http://HOST:PORT` or `vsock://CID:PORT`."""


class Settings(NamedTuple):
    """What differs between a guest and a test on the host."""

    state: str
    """The directory shared by the host, with a bundle per container."""
    listen: Callable[[int], socket]
    """Opens a port of the guest."""
    host_only: bool = True
    """Containers share the guest's AF_VSOCK and must not call their own agent."""
    runtime: str = ""
    """The OCI runtime to prefer."""
    runtime_timeout: float = RUNTIME_TIMEOUT
    """Seconds after which a command of the runtime is killed."""
    rescan: Callable[[], None] = lambda: None
    namespaces: str = "/run/sandbox-ns"
    """Where the namespaces of the pod are mounted; the host's specs name it."""
    debug_shell: str = ""
    """The program that the debug console runs; without one its port stays closed."""
    drain_grace: float = DRAIN_GRACE
    """Seconds for which deletions wait for output that nobody takes, or that may yet come."""
    port_wait: float = PORT_WAIT
    """Seconds for which a virtio-serial port may be missing."""
    observe: ObserveSettings = ObserveSettings()
    all_events: bool = False
    """Hand out every task event, not only those of the OOM killer."""


class Agent:
    """Serves containers until the machine stops."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.reaper = Reaper()
        self.devices = Devices()
        self.events = EventQueue(all_topics=settings.all_events)
        self._admit = _is_host if settings.host_only else _is_anyone
        transports = Transports(
            settings.listen,
            self._admit,
            self.devices,
            drain_grace=settings.drain_grace,
            port_wait=settings.port_wait,
        )
        self.channels = transports.channels
        self.storages = Storages(self.devices, (settings.state, DIRECTORY))
        self.containers = Containers(
            self.reaper,
            transports,
            self.storages,
            ContainerSettings(
                settings.state, settings.runtime, settings.runtime_timeout, settings.rescan
            ),
            self.events.publish,
        )
        self.server = Server(
            authorize=vsock_host_only if settings.host_only else None, to_status=to_status
        )
        tasks = task.TaskService(self.containers)
        self.server.register(task.SERVICE, tasks)
        self.server.register(task.SERVICE, tasks, name=task.V3_NAME)
        self.server.register(
            sandbox.SERVICE, sandbox.SandboxService(self.events, self.reaper, self._make_pod)
        )
        self.server.register(streaming.SERVICE, streaming.StreamingService(transports.channels))
        self.serving_ms = 0.0
        """Since when connections are accepted, on the kernel's clock."""
        self.parts: list[object] = []
        """What came later; the leak report explains by what it finds from here."""
        self._signals: list[object] = []

    def start(self) -> None:
        """Reap from now on, then answer calls. Raises OSError when the port cannot be had."""
        self.reaper.start()
        self.devices.start()
        logging.getLogger("kuasar_agent.ttrpc").addHandler(_LibraryLog(logging.WARNING))
        self._signals = ignore_termination(_report_signal)
        self.server.start(self._settings.listen(1024))
        self.serving_ms = now_ms()
        gevent.spawn(self._observe)
        if self._settings.debug_shell:
            self._open_console(self._settings.debug_shell)

    def _make_pod(self) -> Pod:
        # Not needed to serve, and its imports take a while.
        from kuasar_agent.sandbox.namespaces import PodNamespaces
        from kuasar_agent.sandbox.network import Network
        from kuasar_agent.sandbox.pod import Pod

        settings = self._settings
        network = Network(self.devices, settings.rescan)
        return Pod(PodNamespaces(self.reaper, settings.namespaces), network, settings.state)

    def _open_console(self, shell: str) -> None:
        # Needed for debugging only, and only once the agent serves.
        from kuasar_agent.debug_server import shell_server

        try:
            listener = self._settings.listen(shell_server.PORT)
        except OSError as error:
            log.error("no debug console", port=shell_server.PORT, error=error)
            return
        shells = shell_server.DebugShellServer(self.reaper, shell, self._admit)
        shells.start(listener)
        self.parts.append(shells)
        log.info("debug console", port=shell_server.PORT, shell=shell)

    def _observe(self) -> None:
        # The hub runs this before it accepts the first connection; start-up does without it.
        from kuasar_agent.observe.observer import Observer

        observer = Observer(self, self._settings.observe)
        self.parts.append(observer)
        try:
            observer.start()
        except Exception:
            log.exception("the agent is not observed")

    def run(self) -> None:
        """Let the greenlets run, for ever."""
        gevent.get_hub().join()


def _is_host(address: Any) -> bool:
    return bool(address[0] == VMADDR_CID_HOST)


def _is_anyone(_: Any) -> bool:
    return True


def warm_up() -> None:
    """Import what the host's first SetupSandbox needs, which comes soon; for a thread."""
    from kuasar_agent.sandbox import network, pod  # noqa: F401

    network.warm_up()


def describe() -> dict[str, str]:
    """What the agent is and runs on, for its log."""
    return {"version": __version__, "kernel": os.uname().release}


class _LibraryLog(logging.Handler):
    """Brings what ttrpc says through the standard library into the agent's own log."""

    def emit(self, record: logging.LogRecord) -> None:
        say = log.error if record.levelno >= logging.ERROR else log.warning
        trace = traceback.format_exception(*record.exc_info) if record.exc_info else []
        say(record.getMessage(), **({"traceback": "".join(trace)} if trace else {}))


def _report_signal(name: str) -> None:
    log.warning("signal ignored: the host stops the machine", signal=name)
