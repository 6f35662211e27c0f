"""An agent with its debug console, as a process of the host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gevent.socket import socket

from kuasar_agent.ttrpc import dial
from tests.support.agent import read_all
from tests.support.processes import children_of, fd_targets
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

CONSOLE = 1025


class DebugAgent:
    """Serves `ports/1024` and `ports/1025`; runs no containers."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.ports = directory / "ports"
        self.log = directory / "agent.log"
        self.fds: list[str] = []
        """What the agent has open when no shell runs."""
        state = directory / "state"
        state.mkdir()
        serve = [sys.executable, "-m", "kuasar_agent.cli", "serve", "--debug", *options]
        serve += ["--state", str(state), "--ports", str(self.ports)]
        # The shells' start-up files are not those of whoever runs the tests.
        env = {"PATH": os.environ["PATH"], "HOME": str(directory)}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(serve, stdout=log, stderr=log, env=env)

    def warm_up(self) -> None:
        """Wait until it serves; the first shell opens what stays open."""
        assert eventually(self._serves, bool), self.log.read_text()
        self.run(b"exit\n")
        eventually(self.children, lambda left: not left)
        self.fds = eventually(self._fds, lambda fds: not any("ptmx" in fd for fd in fds))

    @property
    def pid(self) -> int:
        return self._process.pid

    def dial(self) -> socket:
        """A connection to the console."""
        peer = dial(f"unix://{self.ports}/{CONSOLE}", TIMEOUT)
        peer.settimeout(TIMEOUT)
        return peer

    def run(self, typed: bytes) -> bytes:
        """Type into a shell and return what it shows until it ends."""
        peer = self.dial()
        peer.sendall(typed)
        return read_all(peer)

    def children(self) -> list[str]:
        """What the agent left to itself: shells and what they left behind."""
        return children_of(self.pid)

    def assert_clean(self) -> None:
        """No process, terminal or descriptor of any shell is left."""
        assert eventually(self.children, lambda left: not left) == []
        assert eventually(self._fds, lambda fds: fds == self.fds) == self.fds
        assert "Traceback" not in self.log.read_text()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _fds(self) -> list[str]:
        return fd_targets(self.pid)

    def _serves(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        with suppress(FileNotFoundError, ConnectionRefusedError):
            self.dial().close()
            return True
        return False


@contextmanager
def debug_agent(directory: Path, *options: str) -> Iterator[DebugAgent]:
    """An agent that must have nothing left of its shells at the end."""
    agent = DebugAgent(directory, *options)
    try:
        agent.warm_up()
        yield agent
        agent.assert_clean()
    except BaseException:
        print(agent.log.read_text(), file=sys.stderr)
        raise
    finally:
        agent.stop()
