"""What the agent tells about itself: metrics, leaks, dumps, traces, log."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from gevent import socket
from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import task_pb2
from kuasar_agent.services.agent import SERVICE
from kuasar_agent.ttrpc import NotFound, Stub, connect
from tests.support.agent import Agent, running_agent
from tests.support.debug_agent import debug_agent
from tests.support.otlp_receiver import Receiver, assert_nested
from tests.support.processes import fd_targets
from tests.support.streams import url
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

TASK = "containerd.task.v2.Task"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def observed(agent: Agent) -> Stub:
    return agent.client.stub(SERVICE)


def metrics(agent: Agent) -> dict[str, float]:
    """Each sample's value by its name and labels."""
    text = observed(agent).metrics(Empty(), timeout=TIMEOUT).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_a_living_container_is_no_leak_and_what_it_leaves_is(agent: Agent) -> None:
    port = agent.port()
    id = agent.run("sh", "-c", "cat; sleep 1000", stdout=f"vsock://3:{port}")
    reader = agent.dial(port)
    agent.assert_no_leaks()
    agent.kill(id, signal.SIGKILL)
    agent.wait(id)
    agent.delete(id)
    reader.close()
    agent.assert_no_leaks()
    # As a runtime does that forgets to clean up.
    state = agent.runtime_root / "k8s.io" / id
    state.mkdir()
    assert agent.leaks() == [f"file {state} state of the runtime"]
    state.rmdir()


def test_a_report_with_every_kind_of_descriptor_open_is_empty(agent: Agent, tmp_path: Path) -> None:
    fifo, file = tmp_path / "fifo", tmp_path / "file"
    os.mkfifo(fifo)
    file.touch()
    ports = [f"vsock://3:{agent.port()}" for _ in range(2)]
    ids = [
        agent.run("cat", stdin=str(fifo), stdout=str(file), stderr=ports[0]),
        agent.run("cat", terminal=True, stdin=ports[1], stdout=url("s-stdout")),
    ]
    agent.exec(ids[0], "e", "sleep", "1000", stdout=str(fifo))
    opened = " ".join((Counter(agent.open_fds()) - Counter(agent.fds)).elements())
    oom = "memory.events" if "memory.events" in opened else "eventfd"
    kinds = ("pipe:", str(fifo), str(file), "ptmx", "socket:", oom)
    assert [kind for kind in kinds if kind not in opened] == []
    agent.assert_no_leaks()
    for id in ids:
        agent.kill(id, signal.SIGKILL, everyone=True)
        agent.wait(id)
        agent.delete(id)


def test_the_report_of_an_agent_with_an_open_shell_is_empty(tmp_path: Path) -> None:
    with debug_agent(tmp_path) as agent, agent.dial():
        eventually(lambda: fd_targets(agent.pid), lambda fds: any("ptmx" in fd for fd in fds))
        eventually(agent.children, bool)
        with connect(f"unix://{agent.ports}/1024") as client:
            about = client.stub(SERVICE)
            left = eventually(
                lambda: list(about.leaks(Empty(), timeout=TIMEOUT).leaks), lambda left: not left
            )
        assert left == []


def test_metrics_count_calls_containers_and_what_the_process_uses(agent: Agent) -> None:
    before = metrics(agent)
    id = agent.run("sleep", "1000")
    with pytest.raises(NotFound):
        agent.state_of("none")
    with_one = metrics(agent)
    agent.kill(id, signal.SIGKILL)
    agent.wait(id)
    agent.delete(id)
    after = metrics(agent)
    name = "kuasar_agent_calls_total"
    assert with_one[f'{name}{{method="/{TASK}/State",code="NOT_FOUND"}}'] == 1
    assert with_one[f'{name}{{method="/{TASK}/Start",code="OK"}}'] == 1
    bucket = f'kuasar_agent_call_seconds_bucket{{method="/{TASK}/Start",le="+Inf"}}'
    assert with_one[bucket] == 1
    running = 'kuasar_agent_containers{state="running"}'
    assert (before[running], with_one[running], after[running]) == (0, 1, 0)
    assert after["kuasar_agent_reaped_total"] > with_one["kuasar_agent_reaped_total"]
    received = 'kuasar_agent_bytes_total{direction="received"}'
    assert after[received] > before[received]
    assert after["kuasar_agent_open_fds"] == len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))
    assert after['kuasar_agent_memory_bytes{kind="VmRSS"}'] > 1 << 20
    for gauge in ("hub_lag_seconds", "uptime_seconds", "greenlets", "connections"):
        assert after[f"kuasar_agent_{gauge}"] >= 0


def test_sigusr2_dumps_what_the_agent_is_doing(agent: Agent) -> None:
    id = agent.run("sleep", "1000")
    os.kill(agent.pid, signal.SIGUSR2)
    lines = eventually(
        lambda: re.findall(r'msg="(dump: \w+)" src=observe (.*)', agent.log.read_text()),
        lambda found: any(kind == "dump: mount" for kind, _ in found),
    )
    kinds = {kind for kind, _ in lines}
    assert {"dump: greenlet", "dump: thread", "dump: container", "dump: descriptor"} <= kinds
    assert any(f"id={id} status=running" in fields for _, fields in lines)
    followers = [fields for _, fields in lines if "InitProcess._follow" in fields]
    assert len(followers) == 1
    assert "reaper.py" in followers[0]
    assert list(observed(agent).dump(Empty(), timeout=TIMEOUT).lines)
    agent.kill(id, signal.SIGKILL)
    agent.wait(id)
    agent.delete(id)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    with Receiver(listener).serving() as receiver:
        yield receiver


def test_sigusr1_turns_tracing_on_and_off(tmp_path: Path, receiver: Receiver) -> None:
    port = receiver.listener.getsockname()[1]
    endpoint = ["--trace-endpoint", f"http://127.0.0.1:{port}"]
    with running_agent(tmp_path, "crun", *endpoint) as agent:
        agent.check()
        toggle(agent, "true")
        id = agent.bundle("true")
        request = task_pb2.CreateTaskRequest(id=id, options=agent.options())
        agent.tasks.create(request, timeout=TIMEOUT, metadata={"traceparent": CALLER})
        with pytest.raises(NotFound):
            agent.state_of("none")
        agent.start(id)
        agent.wait(id)
        agent.delete(id)
        eventually(lambda: receiver.named(f"{TASK}/Delete"), bool)
        toggle(agent, "false")
        seen = len(receiver.spans)
        agent.check()
        agent.assert_no_leaks()
    assert receiver.requests[0] == b"POST /v1/traces HTTP/1.1\r\n"
    assert receiver.services == {"kuasar-agent"}
    (create,) = receiver.named(f"{TASK}/Create")
    assert (create.trace, create.parent) == tuple(CALLER.split("-")[1:3])
    assert create.attributes["container.id"] == id
    parts = [span.name for span in receiver.children(create)]
    assert {"load_bundle", "storages", "stdio", "runtime create"} <= set(parts)
    assert_nested(receiver, create)
    (runtime,) = (span for span in receiver.children(create) if span.name == "runtime create")
    assert "runtime command" in [span.name for span in receiver.children(runtime)]
    (state,) = receiver.named(f"{TASK}/State")
    assert state.failed
    assert state.parent == ""
    assert not receiver.named("grpc.SandboxService/Check")
    assert len(receiver.spans) == seen


def toggle(agent: Agent, wanted: str) -> None:
    os.kill(agent.pid, signal.SIGUSR1)
    said = f"msg=tracing src=observe.observer on={wanted}"
    assert eventually(lambda: said in agent.log.read_text().replace('"', ""), bool)


def test_the_environment_of_a_container_is_never_logged(tmp_path: Path) -> None:
    with running_agent(tmp_path, "crun", "--log-level", "trace") as agent:
        id = agent.bundle("true")
        config = agent.state / id / "config.json"
        spec = json.loads(config.read_text())
        spec["process"]["env"].append("PASSWORD=hunter2")
        config.write_text(json.dumps(spec))
        agent.create(id)
        agent.start(id)
        agent.wait(id)
        agent.delete(id)
        os.kill(agent.pid, signal.SIGUSR2)
        assert eventually(lambda: "dump: mount" in agent.log.read_text(), bool)
        text = agent.log.read_text()
    assert f"method=/{TASK}/Create id={id}" in text
    assert "hunter2" not in text
    assert "PASSWORD" not in text
