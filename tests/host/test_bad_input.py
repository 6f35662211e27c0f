"""What a host may get wrong: the exact status, nothing left behind, and an agent that answers.

The fixture checks the last two after every test.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api import task_pb2
from kuasar_agent.containers.bundle import STORAGES_ANNOTATION
from kuasar_agent.ttrpc import Code, listen
from tests.support.agent import Agent
from tests.support.refusal import refusal
from tests.support.timeouts import TIMEOUT

BAD_IDS = ["", "a/b", "/", "..", ".", ".hidden", "-x", "--root", "a b", "a\n", "ä", "x" * 200]

CALLS = {
    "create": task_pb2.CreateTaskRequest,
    "start": task_pb2.StartRequest,
    "state": task_pb2.StateRequest,
    "wait": task_pb2.WaitRequest,
    "kill": task_pb2.KillRequest,
    "delete": task_pb2.DeleteRequest,
    "connect": task_pb2.ConnectRequest,
    "exec": task_pb2.ExecProcessRequest,
    "pids": task_pb2.PidsRequest,
    "pause": task_pb2.PauseRequest,
    "resume": task_pb2.ResumeRequest,
    "checkpoint": task_pb2.CheckpointTaskRequest,
    "resize_pty": task_pb2.ResizePtyRequest,
    "close_io": task_pb2.CloseIORequest,
}


@pytest.fixture
def agent(module_agent: Agent) -> Agent:
    return module_agent


def refusals(agent: Agent, id: str) -> dict[str, int]:
    """The code that every call answers for an id."""
    return {
        name: refusal(getattr(agent.tasks, name), request(id=id), timeout=TIMEOUT).code
        for name, request in CALLS.items()
    }


def test_an_unknown_id_is_not_found(agent: Agent) -> None:
    assert refusals(agent, "unknown") == dict.fromkeys(CALLS, Code.NOT_FOUND)


def test_what_is_no_id_is_an_invalid_argument(agent: Agent) -> None:
    (agent.state.parent / "config.json").write_text("{}")
    for id in BAD_IDS:
        assert refusals(agent, id) == dict.fromkeys(CALLS, Code.INVALID_ARGUMENT), id


@pytest.mark.parametrize(
    ("exec_id", "code"),
    [
        ("unknown", Code.NOT_FOUND),
        ("a/b", Code.INVALID_ARGUMENT),
        ("..", Code.INVALID_ARGUMENT),
        ("init", Code.INVALID_ARGUMENT),
    ],
)
def test_an_exec_that_was_not_added_does_not_end_its_container(
    agent: Agent, exec_id: str, code: int
) -> None:
    id = agent.run("sleep", "1000")
    for name in ("start", "state", "wait", "kill", "delete", "resize_pty", "close_io"):
        request = CALLS[name](id=id, exec_id=exec_id)
        assert refusal(getattr(agent.tasks, name), request, timeout=TIMEOUT).code == code, name
    assert agent.delete(id).exit_status == 137


def test_a_bundle_without_files_is_not_found(agent: Agent) -> None:
    (agent.state / "empty").mkdir()
    error = refusal(agent.create, "empty")
    assert error.code == Code.NOT_FOUND
    assert "empty/config.json" in error.message


def test_a_bundle_that_is_a_file_is_not_found(agent: Agent) -> None:
    (agent.state / "file").touch()
    assert refusal(agent.create, "file").code == Code.NOT_FOUND


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"linux": 5}',
        b'{"linux": {"namespaces": 5}}',
        b'{"linux": {"namespaces": [5]}}',
        b'{"process": 5}',
        b'{"linux": {"cgroupsPath": 5}}',
        b'{"annotations": 5}',
        b'{"annotations": {"%s": 5}}' % STORAGES_ANNOTATION.encode(),
        b'{"annotations": {"%s": "{"}}' % STORAGES_ANNOTATION.encode(),
    ],
    ids=lambda text: text[:40].decode(errors="replace"),
)
def test_a_config_that_makes_no_sense_is_an_invalid_argument(agent: Agent, text: bytes) -> None:
    id = agent.bundle("true")
    (agent.state / id / "config.json").write_bytes(text)
    assert refusal(agent.create, id).code == Code.INVALID_ARGUMENT


def test_a_config_that_is_a_directory_is_an_invalid_argument(agent: Agent) -> None:
    id = agent.bundle("true")
    (agent.state / id / "config.json").unlink()
    (agent.state / id / "config.json").mkdir()
    assert refusal(agent.create, id).code == Code.INVALID_ARGUMENT


def test_a_config_that_the_runtime_refuses_carries_the_runtimes_words(agent: Agent) -> None:
    id = agent.bundle("true")
    (agent.state / id / "config.json").write_text("{}")
    error = refusal(agent.create, id)
    assert error.code == Code.UNKNOWN
    assert error.message.startswith("OCI runtime create failed: ")


def test_a_missing_storage_file_is_not_found(agent: Agent) -> None:
    id = agent.bundle("true")
    (agent.state / id / f"storage-{id}").unlink()
    assert refusal(agent.create, id).code == Code.NOT_FOUND


@pytest.mark.parametrize("text", ["", "{}", "[5]", "null"])
def test_a_storage_file_that_makes_no_sense_is_an_invalid_argument(agent: Agent, text: str) -> None:
    id = agent.bundle("true")
    (agent.state / id / f"storage-{id}").write_text(text)
    assert refusal(agent.create, id).code == Code.INVALID_ARGUMENT


def test_an_unknown_storage_driver_is_named(agent: Agent) -> None:
    id = agent.bundle("true")
    (agent.state / id / f"storage-{id}").write_text('[{"driver": "floppy"}]')
    error = refusal(agent.create, id)
    assert error.code == Code.INVALID_ARGUMENT
    assert "unknown driver 'floppy'" in error.message


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_command_that_does_not_exist_is_named(agent: Agent) -> None:
    id = agent.bundle("no-such-command")
    error = refusal(agent.create, id)
    assert error.code == Code.UNKNOWN
    assert "no-such-command" in error.message


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_missing_root_file_system_fails_the_create(agent: Agent) -> None:
    id = agent.bundle("true")
    rewrite(agent, id, root={"path": "/nonexistent"})
    assert refusal(agent.create, id).code == Code.UNKNOWN


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_mount_that_fails_fails_the_create(agent: Agent) -> None:
    id = agent.bundle("true")
    bad = {"destination": "/mnt", "type": "bind", "source": "/nonexistent", "options": ["bind"]}
    rewrite(agent, id, mounts=[bad])
    assert refusal(agent.create, id).code == Code.UNKNOWN


def rewrite(agent: Agent, id: str, **changes: Any) -> None:
    path = agent.state / id / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("taken", ["stdin", "stdout", "stderr"])
def test_a_port_in_use_is_a_failed_precondition(agent: Agent, taken: str) -> None:
    id = agent.bundle("true")
    ports = {name: agent.port() for name in ("stdin", "stdout", "stderr")}
    with listen(f"unix://{agent.ports}/{ports[taken]}"):
        urls = {name: f"vsock://3:{port}" for name, port in ports.items()}
        error = refusal(agent.create, id, **urls)
    assert error.code == Code.FAILED_PRECONDITION
    assert str(ports[taken]) in error.message


def test_two_streams_on_one_port_are_a_failed_precondition(agent: Agent) -> None:
    id, url = agent.bundle("true"), f"vsock://3:{agent.port()}"
    error = refusal(agent.create, id, stdout=url, stderr=url)
    assert error.code == Code.FAILED_PRECONDITION


def test_the_agents_own_port_is_not_for_streams(agent: Agent) -> None:
    error = refusal(agent.create, agent.bundle("true"), stdout="vsock://3:1024")
    assert error.code == Code.FAILED_PRECONDITION


@pytest.mark.parametrize(
    "url",
    [
        "/run/fifo",
        "file:///tmp/x",
        "/proc",
        "ttrpc+vsock://3:1024",
        "ttrpc+vsock://3:1024?streaming_id=",
        "vsock://",
        "vsock://3",
        "vsock://3:",
        "vsock://3:x",
        "vsock://3:-1",
        "vsock://3:4294967295",
        "vsock://3:²",
        "vsock://[::1:5",
        "vsock://3:" + "9" * 5000,
    ],
    ids=lambda url: url[:24],
)
@pytest.mark.parametrize("stream", ["stdin", "stderr"])
def test_a_stream_url_without_a_transport_is_an_invalid_argument(
    agent: Agent, stream: str, url: str
) -> None:
    id = agent.bundle("true")
    urls = {"stdout": f"vsock://3:{agent.port()}", stream: url}
    assert refusal(agent.create, id, **urls).code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize("binary", ["no-such-runtime", "/nonexistent/crun"])
def test_an_unknown_runtime_is_not_found(agent: Agent, binary: str) -> None:
    options = agent.options(binary_name=binary)
    error = refusal(agent.create, agent.bundle("true"), options=options)
    assert error.code == Code.NOT_FOUND
    assert binary in error.message


def test_options_that_do_not_parse_are_an_invalid_argument(agent: Agent) -> None:
    options = AnyMessage(type_url="containerd.runc.v1.Options", value=b"\xff")
    error = refusal(agent.create, agent.bundle("true"), options=options)
    assert error.code == Code.INVALID_ARGUMENT


def test_a_runtime_that_leaves_no_pid_fails_the_create(agent: Agent) -> None:
    options = agent.options(binary_name="/bin/true")
    error = refusal(agent.create, agent.bundle("true"), options=options)
    assert error.code == Code.UNKNOWN
    assert "no pid in" in error.message


def test_a_runtime_that_names_a_stranger_fails_the_create(agent: Agent) -> None:
    script = agent.state.parent / "runtime.sh"
    script.write_text(
        '#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = --pid-file ] && echo 1 > "$2"; shift; done\n'
    )
    script.chmod(0o755)
    options = agent.options(binary_name=str(script))
    error = refusal(agent.create, agent.bundle("true"), options=options)
    assert error.code == Code.UNKNOWN
    assert "not a child" in error.message


def test_a_create_that_failed_can_be_repeated(agent: Agent) -> None:
    id = agent.bundle("true")
    storages = agent.state / id / f"storage-{id}"
    storages.unlink()
    assert refusal(agent.create, id).code == Code.NOT_FOUND
    storages.write_text("[]")
    agent.create(id)
    agent.start(id)
    assert agent.wait(id).exit_status == 0
    agent.delete(id)
