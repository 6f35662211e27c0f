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

from kuasar_agent import __version__, directories
from kuasar_agent.boot.config import TaskConfig
from kuasar_agent.boot.timeline import Timeline, now_ms
from kuasar_agent.containers.manager import Containers
from kuasar_agent.containers.manager import Settings as ContainerSettings
from kuasar_agent.containers.runtime import TIMEOUT as RUNTIME_TIMEOUT
from kuasar_agent.devices import Devices
from kuasar_agent.events import EventQueue
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Reaper, ignore_termination
from kuasar_agent.services import sandbox, streaming, task
from kuasar_agent.services.statuses import to_status
from kuasar_agent.stdio.transports import PORT_WAIT, Transports
from kuasar_agent.storage.storages import Storages
from kuasar_agent.ttrpc import Server

if TYPE_CHECKING:
    from kuasar_agent.debug_server.server import DebugServer
    from kuasar_agent.observe.observer import Observer
    from kuasar_agent.sandbox.pod import Pod

log = get_logger(__name__)


class Settings(NamedTuple):
    """The user's settings, and the surroundings: a guest or an ordinary process."""

    listen: Callable[[int], socket]
    """Returns a socket that listens on a port of the guest."""
    config: TaskConfig = TaskConfig()
    state: str = directories.SHARE
    """The directory shared by the host, with a bundle per container."""
    runtime_timeout: float = RUNTIME_TIMEOUT
    """Seconds after which a command of the runtime is killed."""
    rescan: Callable[[], None] = lambda: None
    """Lets devices appear that the host plugged; may block."""
    namespaces: str = directories.NAMESPACES
    """Directory on which the pod's namespaces are mounted; the host's specs name it."""
    port_wait: float = PORT_WAIT
    """Seconds for which a create waits for a virtio-serial port to appear."""
    timeline: Timeline | None = None
    """The steps of start-up; None for an agent that is not PID 1."""


class Agent:
    """The parts of the agent, built and connected; it serves until the machine stops."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        config = settings.config
        self.reaper = Reaper()
        self.devices = Devices()
        self.events = EventQueue(all_topics=config.events == "all")
        self._admit = _is_host if config.is_host_only() else _is_anyone
        transports = Transports(
            settings.listen,
            self._admit,
            self.devices,
            drain_grace=config.drain_grace,
            port_wait=settings.port_wait,
        )
        self.channels = transports.channels
        self.storages = Storages(self.devices, (settings.state, directories.STORAGE))
        self.containers = Containers(
            self.reaper,
            transports,
            self.storages,
            ContainerSettings(
                settings.state, config.runtime, settings.runtime_timeout, settings.rescan
            ),
            self.events.publish,
        )
        self.server = Server(
            authorize=lambda _, peer: self._admit((peer.cid, peer.port)), to_status=to_status
        )
        self._register_services()
        self.serving_ms = 0.0
        """Time at which connections were first accepted, on the kernel's clock."""
        # Kept so that the leak report reaches what they hold.
        self._signals: list[object] = []
        self._debug_server: DebugServer | None = None
        self._observer: Observer | None = None

    def _register_services(self) -> None:
        tasks = task.TaskService(self.containers)
        self.server.register(task.SERVICE, tasks)
        self.server.register(task.SERVICE, tasks, name=task.V3_NAME)
        pods = sandbox.SandboxService(self.events, self.reaper, self._make_pod)
        self.server.register(sandbox.SERVICE, pods)
        self.server.register(streaming.SERVICE, streaming.StreamingService(self.channels))

    def start(self) -> None:
        """Reap from now on, then answer calls.

        Raises:
            OSError: vsock port 1024 cannot be opened.
        """
        self.reaper.start()
        self.devices.start()
        logging.getLogger("kuasar_agent.ttrpc").addHandler(_LibraryLog(logging.WARNING))
        self._signals = ignore_termination(_report_signal)
        self.server.start(self._settings.listen(1024))
        self.serving_ms = now_ms()
        gevent.spawn(self._observe)
        if self._settings.config.debug:
            self._open_debug_server(self._settings.config.debug_shell)

    def _make_pod(self) -> Pod:
        # Imported with the first SetupSandbox: serving does not need it (start-up time).
        from kuasar_agent.sandbox.namespaces import PodNamespaces
        from kuasar_agent.sandbox.network import Network
        from kuasar_agent.sandbox.pod import Pod

        settings = self._settings
        network = Network(self.devices, settings.rescan)
        return Pod(PodNamespaces(self.reaper, settings.namespaces), network, settings.state)

    def _open_debug_server(self, shell: str) -> None:
        # Imported only with `task.debug`, after the agent listens (start-up time).
        from kuasar_agent.debug_server import server as debug_server

        try:
            listener = self._settings.listen(debug_server.PORT)
        except OSError as error:
            log.error("no debug server", port=debug_server.PORT, error=error)
            return
        self._debug_server = debug_server.DebugServer(self.reaper, shell, self._admit)
        self._debug_server.start(listener)
        log.info("debug server", port=debug_server.PORT, shell=shell)

    def _observe(self) -> None:
        # The hub runs this before it accepts the first connection, but after the agent listens.
        from kuasar_agent.observe.observer import Observer
        from kuasar_agent.services import agent as service

        config = self._settings.config
        observer = Observer(self, self._settings.timeline, config.trace_endpoint)
        self._observer = observer
        try:
            self.server.register(service.SERVICE, service.AgentService(observer))
            observer.start(trace=config.enable_tracing)
        except Exception:
            log.exception("the agent is not observed")

    def run(self) -> None:
        """Run the hub; does not return."""
        gevent.get_hub().join()


def _is_host(address: Any) -> bool:
    return bool(address[0] == VMADDR_CID_HOST)


def _is_anyone(_: Any) -> bool:
    return True


def warm_up() -> None:
    """Import the modules of SetupSandbox, the host's first call. Blocks: a thread."""
    from kuasar_agent.sandbox import network, pod  # noqa: F401

    network.warm_up()


def describe() -> dict[str, str]:
    """Return the agent's version and the kernel's release, for the log."""
    return {"version": __version__, "kernel": os.uname().release}


class _LibraryLog(logging.Handler):
    """Handler that writes the records of the ttrpc library to the agent's log."""

    def emit(self, record: logging.LogRecord) -> None:
        write = log.error if record.levelno >= logging.ERROR else log.warning
        trace = traceback.format_exception(*record.exc_info) if record.exc_info else []
        write(record.getMessage(), **({"traceback": "".join(trace)} if trace else {}))


def _report_signal(name: str) -> None:
    log.warning("signal ignored: the host stops the machine", signal=name)
