"""The house put together: who is built from what, in the order in which it comes to life."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import gevent
from gevent.socket import socket

from kuasar_agent import __version__
from kuasar_agent.containers.manager import Containers
from kuasar_agent.containers.transports import StreamPorts
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Reaper, ignore_termination
from kuasar_agent.services import sandbox, task
from kuasar_agent.ttrpc import Server

log = get_logger(__name__)

HOST_CID = 2

Admit = Callable[[Any], bool]
"""Decides by its address whether a peer may talk to the agent."""


class Settings(NamedTuple):
    """What differs between a guest and a test on the host."""

    state: str
    """The directory shared by the host, with a bundle per container."""
    listen: Callable[[int], socket]
    """Opens a port of the guest."""
    admit: Admit
    runtime: str = ""
    """The OCI runtime to prefer."""
    rescan: Callable[[], None] = lambda: None
    debug_shell: str = ""
    """The program that the debug console runs; without one its port stays closed."""


class Agent:
    """Serves containers until the machine stops."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.reaper = Reaper()
        ports = StreamPorts(settings.listen, settings.admit)
        self.containers = Containers(
            self.reaper,
            ports,
            settings.state,
            runtime=settings.runtime,
            rescan=settings.rescan,
        )
        self.server = Server(
            authorize=lambda _, peer: settings.admit(peer), on_error=_report_handler
        )
        tasks = task.TaskService(self.containers)
        self.server.register(task.SERVICE, tasks)
        self.server.register(task.SERVICE, tasks, name=task.V3_NAME)
        self.server.register(sandbox.SERVICE, sandbox.SandboxService())
        self._signals: list[object] = []

    def start(self) -> None:
        """Reap from now on, then answer calls. Raises OSError when the port cannot be had."""
        self.reaper.start()
        self._signals = ignore_termination(_report_signal)
        self.server.start(self._settings.listen(1024))
        if self._settings.debug_shell:
            self._open_console(self._settings.debug_shell)

    def _open_console(self, shell: str) -> None:
        # Needed for debugging only, and only once the agent serves.
        from kuasar_agent import console

        try:
            listener = self._settings.listen(console.PORT)
        except OSError as error:
            log.error("no debug console", port=console.PORT, error=error)
            return
        console.Console(self.reaper, shell, self._settings.admit).start(listener)
        log.info("debug console", port=console.PORT, shell=shell)

    def run(self) -> None:
        """Let the greenlets run, for ever."""
        gevent.get_hub().join()


def only_host(address: Any) -> bool:
    """Admit the host. Containers share the guest's AF_VSOCK and must not call their own agent."""
    return bool(address[0] == HOST_CID)


def anyone(address: Any) -> bool:
    return True


def describe() -> dict[str, str]:
    """What the agent is and runs on, for its log."""
    return {"version": __version__, "kernel": os.uname().release}


def _report_handler(method: str, error: BaseException) -> None:
    log.error("call failed", method=method, error=error)


def _report_signal(name: str) -> None:
    log.warning("signal ignored: the host stops the machine", signal=name)
