"""containerd-shim-runc-v2 (Debian: containerd), without containerd.

It is containerd's own server of the Task service: a peer to talk to, and to compare with. `start`
leaves a daemon behind that writes its log to the FIFO `log` and tells its socket on stdout.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import events_pb2, runc_options_pb2, task_pb2
from kuasar_agent.services import task
from kuasar_agent.ttrpc import Context, Server, connect, listen
from kuasar_agent.ttrpc.status import StatusError
from tests.support.timeouts import TIMEOUT

NAMESPACE = "k8s.io"
_EVENTS = events_pb2.DESCRIPTOR.services_by_name["Events"]


@contextmanager
def running_shim(bundle: Path, id: str, events: Path | None = None) -> Iterator[str]:
    """The address of a shim started in a bundle as containerd starts it; gone at the end.

    A bundle without a config.json gets an empty one: an annotation there could name another shim
    to join. Events are forwarded to the socket `events`, by default to nobody.
    """
    config = bundle / "config.json"
    if not config.exists():
        config.write_text("{}")
    # The shim dies when nobody reads its log. An end of our own that is open both ways is enough:
    # what it says fits the pipe.
    os.mkfifo(bundle / "log")
    log = os.open(bundle / "log", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    command = ["containerd-shim-runc-v2", "-namespace", NAMESPACE, "-id", id]
    command += ["-address", f"{bundle}/containerd.sock", "start"]
    environment = os.environ | {"TTRPC_ADDRESS": str(events or bundle / "none.sock")}
    socket_path = None
    try:
        started = subprocess.run(
            command,
            cwd=bundle,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=TIMEOUT,
        )
        address = started.stdout.strip()
        socket_path = Path(address.removeprefix("unix://"))
        yield address
    finally:
        for pid in shims_in(bundle):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if socket_path is not None:
            socket_path.unlink(missing_ok=True)
        os.close(log)


def shims_in(bundle: Path) -> list[int]:
    """The shims that run in a bundle: their working directory is all that tells them apart."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            shim = process.joinpath("comm").read_text().startswith("containerd-shim")
            if shim and process.joinpath("cwd").readlink() == bundle:
                found.append(int(process.name))
        except OSError:
            # It ended meanwhile.
            continue
    return found


class _Events:
    """What containerd does with events: takes them.

    A shim stops answering when some hundred could not be forwarded.
    """

    def __init__(self) -> None:
        self.topics: list[str] = []

    def forward(self, ctx: Context, request: events_pb2.ForwardRequest) -> Empty:
        self.topics.append(request.envelope.topic)
        return Empty()


class Shim:
    """A shim that is spoken to: creates containers and answers every rpc by its name."""

    def __init__(self, directory: Path, runtime: str = "runc") -> None:
        """`directory` gets the shim's own files and the runtime's records."""
        directory.mkdir()
        self._options = runc_options_pb2.Options(
            binary_name=runtime, root=str(directory / "runtime")
        )
        self._events = _Events()
        server = Server()
        server.register(_EVENTS, self._events)
        server.start(listen(f"unix://{directory}/events"))
        with ExitStack() as stack:
            stack.callback(server.close)
            address = stack.enter_context(
                running_shim(directory, directory.name, directory / "events")
            )
            client = stack.enter_context(connect(address, TIMEOUT))
            self._stub = client.stub(task.SERVICE)
            self._exit = stack.pop_all()

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

    def __exit__(self, *_: object) -> None:
        with suppress(StatusError):
            self.call("shutdown", task_pb2.ShutdownRequest(now=True))
        self._exit.close()
