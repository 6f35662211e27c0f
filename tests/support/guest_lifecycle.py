"""The core of the lifecycle, for guests that were booted one way or another."""

from __future__ import annotations

import signal

import gevent
import pytest

from kuasar_agent.api.task_types_pb2 import PAUSED, RUNNING, STOPPED
from kuasar_agent.ttrpc import StatusError
from kuasar_host.bundle import make_spec
from tests.support.guest import Guest
from tests.support.timeouts import TIMEOUT

KILLED = 128 + signal.SIGKILL


class Life:
    """One container that runs until it is killed."""

    def __init__(self, guest: Guest) -> None:
        self.id = guest.bundle(["sleep", "1000"])
        self._calls = guest.calls
        self._calls.create(self.id)
        self._calls.start(self.id)

    def status(self) -> int:
        return self._calls.state_of(self.id).status

    def exec(self, exec_id: str, script: str) -> int:
        """Run a shell script in an exec, delete it, return its exit status."""
        process = make_spec(self.id, ["sh", "-c", script])["process"]
        self._calls.add_exec(self.id, exec_id, process)
        waiter = gevent.spawn(self._calls.wait, self.id, exec_id)
        self._calls.start(self.id, exec_id)
        status = int(waiter.get().exit_status)
        assert self._calls.delete(self.id, exec_id).exit_status == status
        return status

    def pids(self) -> int:
        return len(self._calls.pids(self.id))

    def pause(self) -> None:
        self._calls.pause(self.id)

    def resume(self) -> None:
        self._calls.resume(self.id)

    def kill(self) -> int:
        """Kill the container and return its exit status."""
        self._calls.kill(self.id, signal.SIGKILL)
        return self._calls.wait(self.id).exit_status

    def delete(self) -> int:
        """Delete the container and return its exit status."""
        return self._calls.delete(self.id).exit_status


def check_lifecycle(guest: Guest) -> None:
    """Execs, pause and resume, and the end of a running and of a paused container."""
    life = Life(guest)
    assert (life.status(), life.pids()) == (RUNNING, 1)
    scripts = {f"x{status}": f"exit {status}" for status in (0, 7, 255)}
    execs = [gevent.spawn(life.exec, *script) for script in scripts.items()]
    assert [exec.get(timeout=TIMEOUT) for exec in execs] == [0, 7, 255]
    life.pause()
    assert life.status() == PAUSED
    with pytest.raises(StatusError, match="paused"):
        life.exec("y", "true")
    life.resume()
    assert life.exec("z", "kill -9 $$") == KILLED
    life.pause()
    assert life.kill() == KILLED
    assert (life.status(), life.delete()) == (STOPPED, KILLED)
    paused = Life(guest)
    paused.pause()
    assert paused.delete() == KILLED
