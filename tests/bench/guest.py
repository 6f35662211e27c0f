"""Containers in a microVM, run for what they print."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gevent

from kuasar_agent.api import task_pb2
from kuasar_agent.ttrpc import dial
from kuasar_host.bundle import make_bundle
from kuasar_host.errors import HostError
from kuasar_host.microvm import MicroVM
from tests.support.timeouts import TIMEOUT

_TASK = task_pb2.DESCRIPTOR.services_by_name["Task"]
_STDOUT_PORT = 20001
_CHUNK = 65536

Spec = dict[str, Any]


class Output(NamedTuple):
    text: str
    first_at: float
    """When the first byte came, on time.monotonic()'s clock."""


def run(
    vm: MicroVM, id: str, command: Sequence[str], edit: Callable[[Spec], None] | None = None
) -> Output:
    """The output of `command` in a container; `edit` changes its spec first.

    Raises StatusError when the agent refuses it and HostError when the command fails.
    """
    bundle = make_bundle(vm.shared, id, command)
    if edit is not None:
        spec = json.loads((bundle / "config.json").read_text())
        edit(spec)
        (bundle / "config.json").write_text(json.dumps(spec))
    with vm.connect() as client:
        task = client.stub(_TASK)
        task.create(task_pb2.CreateTaskRequest(id=id, stdout=f"vsock://3:{_STDOUT_PORT}"))
        try:
            reader = gevent.spawn(_read, vm)
            task.start(task_pb2.StartRequest(id=id))
            status = task.wait(task_pb2.WaitRequest(id=id), timeout=TIMEOUT).exit_status
            output: Output = reader.get(timeout=TIMEOUT)
        finally:
            task.delete(task_pb2.DeleteRequest(id=id))
    if status != 0:
        raise HostError(f"{' '.join(command)}: exit status {status}\n{output.text}")
    return output


def _read(vm: MicroVM) -> Output:
    data, first_at = b"", 0.0
    with dial(vm.address(_STDOUT_PORT), TIMEOUT) as peer:
        while chunk := peer.recv(_CHUNK):
            first_at = first_at or time.monotonic()
            data += chunk
    return Output(data.decode(), first_at)
