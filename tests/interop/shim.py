"""containerd-shim-runc-v2 (Debian: containerd) as a peer to compare with.

It is containerd's own server of the same Task service. `start` leaves a daemon behind that writes
its log to the FIFO `log` and tells its socket on stdout. The daemon forwards its events, and stops
answering when some hundred could not be: somebody has to take them.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import events_pb2, runc_options_pb2, task_pb2
from kuasar_agent.services import task
from kuasar_agent.ttrpc import Context, Server, connect, listen
from kuasar_agent.ttrpc.status import StatusError

NAMESPACE = "k8s.io"
TIMEOUT = 60.0
_EVENTS = events_pb2.DESCRIPTOR.services_by_name["Events"]


class _Events:
    """What containerd does with events: takes them."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    def forward(self, ctx: Context, request: events_pb2.ForwardRequest) -> Empty:
        self.topics.append(request.envelope.topic)
        return Empty()


class Shim:
    """A shim with its daemon; its calls are methods named as those of a stub."""

    def __init__(self, directory: Path, runtime: str = "runc") -> None:
        """`directory` gets the shim's own files and the runtime's records."""
        directory.mkdir()
        self._options = runc_options_pb2.Options(
            binary_name=runtime, root=str(directory / "runtime")
        )
        # An annotation there could name another shim to join.
        (directory / "config.json").write_text("{}")
        self._events = _Events()
        self._server = Server()
        self._server.register(_EVENTS, self._events)
        self._server.start(listen(f"unix://{directory}/events"))
        os.mkfifo(directory / "log")
        # Nobody reads it, but the shim needs a reader to open it.
        self._log = os.open(directory / "log", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        command = ["containerd-shim-runc-v2", "-namespace", NAMESPACE, "-id", directory.name]
        command += ["-address", f"{directory}/containerd.sock", "start"]
        started = subprocess.run(
            command,
            cwd=directory,
            env=os.environ | {"TTRPC_ADDRESS": f"{directory}/events"},
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        self._client = connect(started.stdout.strip(), TIMEOUT)
        self._stub = self._client.stub(task.SERVICE)
        self.pid = int(self.call("connect", task_pb2.ConnectRequest(id="")).shim_pid)

    @property
    def topics(self) -> list[str]:
        """Of the events so far."""
        return self._events.topics

    def call(self, name: str, request: Any, timeout: float = TIMEOUT) -> Any:
        """One rpc, in the namespace that containerd would name."""
        metadata = {"containerd-namespace-ttrpc": NAMESPACE}
        return getattr(self._stub, name)(request, timeout=timeout, metadata=metadata)

    def create(self, id: str, bundle: Path, **fields: Any) -> int:
        """Create a container from the bundle; returns its pid."""
        value = self._options.SerializeToString()
        options = AnyMessage(type_url="containerd.runc.v1.Options", value=value)
        request = task_pb2.CreateTaskRequest(id=id, bundle=str(bundle), options=options, **fields)
        return int(self.call("create", request).pid)

    def __enter__(self) -> Shim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(StatusError):
            self.call("shutdown", task_pb2.ShutdownRequest(now=True))
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._client.close()
        self._server.close()
        os.close(self._log)
