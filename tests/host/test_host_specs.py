"""Containers from the specifications that real hosts write, with both OCI runtimes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api import task_pb2
from tests.support.agent import Agent, running_agent
from tests.support.host_specs import CAPTURED, KINDS, VERSIONS, as_kuasar_writes, load
from tests.support.tasks import PROCESS_TYPE
from tests.support.timeouts import TIMEOUT

Json = dict[str, Any]

# The umask that a process has for which the host asks no other.
RUNS = ["sh", "-c", "[ $(umask) = 0022 ] && exec sleep 1000"]
# A first process that ends instead takes the exec with it.
EXEC = (
    "[ $(umask) = 0022 ] || exit 1; until grep -q sleep /proc/1/comm; do usleep 9999; done; exit 7"
)


@pytest.fixture(scope="module", params=["crun", "runc"])
def one_agent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agent]:
    directory = tmp_path_factory.mktemp("agent")
    with running_agent(directory, request.param, own_network=True) as agent:
        yield agent


def write_bundle(agent: Agent, spec: Json) -> str:
    """Write a bundle with the paths of this machine; everything else is the host's."""
    id = agent.bundle()
    spec["root"]["path"] = str(agent.rootfs)
    spec["process"]["args"] = RUNS
    spec["linux"]["cgroupsPath"] = f"/{agent.cgroup}/{id}"
    for namespace in spec["linux"]["namespaces"]:
        if namespace["type"] in ("ipc", "uts"):
            namespace.pop("path", None)
    # Lowering it takes CAP_SYS_RESOURCE, which root of a machine for tests may lack.
    spec["process"]["oomScoreAdj"] = max(0, spec["process"].get("oomScoreAdj") or 0)
    file = agent.state / "a-file"
    file.touch()
    for mount in spec["mounts"]:
        if "rbind" in mount["options"]:
            place = agent.state if mount["destination"] == "/dev/shm" else file
            mount["source"] = str(place)
    (agent.state / id / "config.json").write_text(json.dumps(spec))
    return id


def live(agent: Agent, spec: Json, process: Json) -> None:
    """Create, start, exec and delete; the exec sees the umask that every runtime's default is."""
    id = write_bundle(agent, spec)
    agent.create(id)
    agent.start(id)
    message = AnyMessage(
        type_url=PROCESS_TYPE, value=json.dumps(process | {"args": ["sh", "-c", EXEC]}).encode()
    )
    request = task_pb2.ExecProcessRequest(id=id, exec_id="e", spec=message)
    agent.tasks.exec(request, timeout=TIMEOUT)
    agent.start(id, "e")
    assert agent.wait(id, "e").exit_status == 7
    agent.delete(id)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_container_of_containerd_lives(one_agent: Agent, version: str, kind: str) -> None:
    specs = load(version)
    live(one_agent, specs[kind], specs["exec"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_container_of_kuasar_lives(one_agent: Agent, version: str, kind: str) -> None:
    specs = load(version)
    live(one_agent, as_kuasar_writes(specs[kind]), specs["exec"])


def test_the_captured_container_of_kuasar_lives(one_agent: Agent) -> None:
    live(one_agent, json.loads(CAPTURED.read_text()), load("2.1.4")["exec"])


def test_a_kernel_parameter_of_the_pod_is_the_guests(one_agent: Agent) -> None:
    specs = load("2.1.4")
    live(one_agent, specs["pause"], specs["exec"])
    command = [
        "nsenter",
        "-t",
        str(one_agent.pid),
        "-n",
        "cat",
        "/proc/sys/net/ipv4/ping_group_range",
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.split() == ["0", "2147483647"]
