"""100: our client and a real containerd-shim-runc-v2 (Debian's containerd, Go ttrpc)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from kuasar_agent.api import task_pb2
from kuasar_agent.ttrpc import Client, ConnectionClosed, NotFound, Unimplemented, connect
from tests.support.shim import running_shim, shims_in
from tests.support.ttrpc.live import until
from tests.support.ttrpc.wire import PATIENCE

TASK = task_pb2.DESCRIPTOR.services_by_name["Task"]
ABSENT = r"^container not created: not found$"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with (
        running_shim(tmp_path, f"interop-{os.getpid()}") as address,
        connect(address, PATIENCE) as client,
    ):
        yield client


def test_100_connect_tells_the_shims_pid(client: Client, tmp_path: Path) -> None:
    answer = client.stub(TASK).connect(task_pb2.ConnectRequest(id="any"), timeout=PATIENCE)
    assert [answer.shim_pid] == shims_in(tmp_path)
    assert not answer.task_pid


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("state", task_pb2.StateRequest),
        ("pids", task_pb2.PidsRequest),
        ("wait", task_pb2.WaitRequest),
        ("delete", task_pb2.DeleteRequest),
    ],
)
def test_100_call_for_a_container_that_is_not_there_is_5_in_the_shims_words(
    client: Client, method: str, request_type: Callable[..., Message]
) -> None:
    call = getattr(client.stub(TASK), method)
    with pytest.raises(NotFound, match=ABSENT):
        call(request_type(id="none"), timeout=PATIENCE)


def test_100_calls_at_once_on_one_connection_are_all_answered(client: Client) -> None:
    stub = client.stub(TASK)

    def state() -> Any:
        with pytest.raises(NotFound, match=ABSENT):
            stub.state(task_pb2.StateRequest(id="none"), metadata={"key": "value"})
        return stub.connect(task_pb2.ConnectRequest()).shim_pid

    calls = [gevent.spawn(state) for _ in range(64)]
    pids = {call.get(timeout=PATIENCE) for call in calls}
    assert len(pids) == 1
    assert client.calls == 0


def test_100_unknown_service_and_method_are_12(client: Client) -> None:
    for method, words in (
        ("/containerd.task.v3.Task/State", r"^service containerd\.task\.v3\.Task$"),
        ("/containerd.task.v2.Task/Nope", r"^method Nope$"),
    ):
        with pytest.raises(Unimplemented, match=words):
            client.call(method, StringValue(), PATIENCE, reply_type=Empty)


def test_100_shutdown_answers_and_the_connection_ends(client: Client, tmp_path: Path) -> None:
    stub = client.stub(TASK)
    assert stub.shutdown(task_pb2.ShutdownRequest(now=True), timeout=PATIENCE) == Empty()
    until(lambda: client.closed and not shims_in(tmp_path))
    with pytest.raises(ConnectionClosed, match=r"^ttrpc: closed$"):
        stub.connect(task_pb2.ConnectRequest())
