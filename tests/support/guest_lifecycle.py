"""The core of the lifecycle, for guests that were booted one way or another."""

from __future__ import annotations

import json
import signal

import gevent
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api import task_pb2
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
        self._task = guest.task
        self._task.create(task_pb2.CreateTaskRequest(id=self.id), timeout=TIMEOUT)
        self._task.start(task_pb2.StartRequest(id=self.id), timeout=TIMEOUT)

    def status(self) -> int:
        request = task_pb2.StateRequest(id=self.id)
        return int(self._task.state(request, timeout=TIMEOUT).status)

    def exec(self, exec_id: str, script: str) -> int:
        """Run a shell script beside it; its exit status."""
        process = make_spec(self.id, ["sh", "-c", script])["process"]
        spec = AnyMessage(value=json.dumps(process).encode())
        request = task_pb2.ExecProcessRequest(id=self.id, exec_id=exec_id, spec=spec)
        self._task.exec(request, timeout=TIMEOUT)
        wait = task_pb2.WaitRequest(id=self.id, exec_id=exec_id)
        waiter = gevent.spawn(self._task.wait, wait, timeout=TIMEOUT)
        start = task_pb2.StartRequest(id=self.id, exec_id=exec_id)
        self._task.start(start, timeout=TIMEOUT)
        status = int(waiter.get().exit_status)
        delete = task_pb2.DeleteRequest(id=self.id, exec_id=exec_id)
        assert self._task.delete(delete, timeout=TIMEOUT).exit_status == status
        return status

    def pids(self) -> int:
        request = task_pb2.PidsRequest(id=self.id)
        return len(self._task.pids(request, timeout=TIMEOUT).processes)

    def pause(self) -> None:
        self._task.pause(task_pb2.PauseRequest(id=self.id), timeout=TIMEOUT)

    def resume(self) -> None:
        self._task.resume(task_pb2.ResumeRequest(id=self.id), timeout=TIMEOUT)

    def kill(self) -> int:
        """Its exit status."""
        request = task_pb2.KillRequest(id=self.id, signal=signal.SIGKILL)
        self._task.kill(request, timeout=TIMEOUT)
        wait = task_pb2.WaitRequest(id=self.id)
        return int(self._task.wait(wait, timeout=TIMEOUT).exit_status)

    def delete(self) -> int:
        """Its exit status."""
        request = task_pb2.DeleteRequest(id=self.id)
        return int(self._task.delete(request, timeout=TIMEOUT).exit_status)


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
