"""The Task service with fields as arguments: every call has a time-out and a plain answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api import task_pb2
from kuasar_agent.ttrpc import Stub
from tests.support.timeouts import TIMEOUT

PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"


class Tasks:
    """The containers and execs of one agent, each named by its id."""

    def __init__(self, stub: Stub, timeout: float = TIMEOUT) -> None:
        self._stub = stub
        self._timeout = timeout

    def create(self, id: str, **fields: Any) -> int:
        """Create a container and return its pid."""
        request = task_pb2.CreateTaskRequest(id=id, **fields)
        return int(self._stub.create(request, timeout=self._timeout).pid)

    def start(self, id: str, exec_id: str = "") -> int:
        """Start a container or an exec and return its pid."""
        request = task_pb2.StartRequest(id=id, exec_id=exec_id)
        return int(self._stub.start(request, timeout=self._timeout).pid)

    def add_exec(self, id: str, exec_id: str, process: Mapping[str, Any], **fields: Any) -> None:
        """Add an exec that runs an OCI Process."""
        spec = AnyMessage(type_url=PROCESS_TYPE, value=json.dumps(process).encode())
        request = task_pb2.ExecProcessRequest(id=id, exec_id=exec_id, spec=spec, **fields)
        self._stub.exec(request, timeout=self._timeout)

    def wait(self, id: str, exec_id: str = "") -> task_pb2.WaitResponse:
        """Return status and time of an exit, once there is one."""
        request = task_pb2.WaitRequest(id=id, exec_id=exec_id)
        reply: task_pb2.WaitResponse = self._stub.wait(request, timeout=self._timeout)
        return reply

    def state_of(self, id: str, exec_id: str = "") -> task_pb2.StateResponse:
        """Return the state of a container or an exec."""
        request = task_pb2.StateRequest(id=id, exec_id=exec_id)
        reply: task_pb2.StateResponse = self._stub.state(request, timeout=self._timeout)
        return reply

    def kill(self, id: str, number: int, exec_id: str = "", *, everyone: bool = False) -> None:
        """Send a signal to one process, or to all of a container."""
        request = task_pb2.KillRequest(id=id, exec_id=exec_id, signal=number, all=everyone)
        self._stub.kill(request, timeout=self._timeout)

    def pause(self, id: str) -> None:
        """Freeze a container."""
        self._stub.pause(task_pb2.PauseRequest(id=id), timeout=self._timeout)

    def resume(self, id: str) -> None:
        """Thaw a container."""
        self._stub.resume(task_pb2.ResumeRequest(id=id), timeout=self._timeout)

    def pids(self, id: str) -> list[int]:
        """Return the pids of a container's processes."""
        reply = self._stub.pids(task_pb2.PidsRequest(id=id), timeout=self._timeout)
        return [process.pid for process in reply.processes]

    def close_io(self, id: str, exec_id: str = "") -> None:
        """End the input of a process."""
        request = task_pb2.CloseIORequest(id=id, exec_id=exec_id, stdin=True)
        self._stub.close_io(request, timeout=self._timeout)

    def resize(self, id: str, width: int, height: int, exec_id: str = "") -> None:
        """Set the size of a process's terminal."""
        request = task_pb2.ResizePtyRequest(id=id, exec_id=exec_id, width=width, height=height)
        self._stub.resize_pty(request, timeout=self._timeout)

    def delete(self, id: str, exec_id: str = "") -> task_pb2.DeleteResponse:
        """Delete a container or an exec; return its exit."""
        request = task_pb2.DeleteRequest(id=id, exec_id=exec_id)
        reply: task_pb2.DeleteResponse = self._stub.delete(request, timeout=self._timeout)
        return reply
