"""Containers from the specifications of real hosts in a microVM, on cgroup v1 and v2."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api import runc_options_pb2, sandbox_pb2, task_pb2
from kuasar_agent.ttrpc import dial
from kuasar_host.microvm import MicroVM
from tests.support.guest import Guest, config
from tests.support.host_specs import CAPTURED, as_kuasar_writes, load
from tests.support.tasks import PROCESS_TYPE
from tests.support.timeouts import GUEST

Json = dict[str, Any]

LIMIT = 128 << 20
RUNC = "/usr/sbin/runc"
IN_GUEST = "/run/kuasar/state"

_ports = itertools.count(41000)


@pytest.fixture(scope="module", params=["v1", "v2"])
def machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """A pod that was set up, on a guest with the cgroup version of the parameter."""
    directory = tmp_path_factory.mktemp(request.param)
    options = config(directory, append=f"task.cgroup={request.param} task.sharefs_type=virtiofs")
    with MicroVM.boot(options) as vm:
        guest = Guest(vm)
        shutil.copy(RUNC, vm.shared / "runc")
        for name in ("hostname", "hosts", "resolv.conf"):
            (vm.shared / name).write_text("web-0\n")
        pod = AnyMessage(type_url="PodSandboxConfig", value=b"{}")
        guest.sandbox.setup_sandbox(sandbox_pb2.SetupSandboxRequest(config=pod), timeout=GUEST)
        yield guest
        print("console:", vm.console.tail(), sep="\n")


@pytest.fixture(autouse=True)
def hangs_end() -> Iterator[None]:
    with gevent.Timeout(GUEST):
        yield


def run(guest: Guest, spec: Json, script: str, process: Json, runtime: str = "crun") -> str:
    """Return the output of a container's script, during which an exec ends with 7.

    crun is the guest's own; runc is Debian's, in the shared directory.
    """
    port = next(_ports)
    binary = f"{IN_GUEST}/runc" if runtime == "runc" else ""
    value = runc_options_pb2.Options(binary_name=binary).SerializeToString()
    options = AnyMessage(type_url="containerd.runc.v1.Options", value=value)
    id = guest.bundle(["true"])
    path = f"{IN_GUEST}/{id}/rootfs"
    spec["root"]["path"] = path
    spec["process"]["args"] = [
        "sh",
        "-c",
        f"{script}; until [ -e /tmp/end ]; do usleep 50000; done",
    ]
    spec["process"]["terminal"] = False
    file = guest.vm.shared / id / "config.json"
    file.write_text(json.dumps(spec))
    create = task_pb2.CreateTaskRequest(id=id, stdout=f"vsock://3:{port}", options=options)
    guest.task.create(create, timeout=GUEST)
    output = gevent.spawn(_read, guest, port)
    guest.task.start(task_pb2.StartRequest(id=id), timeout=GUEST)
    process = process | {"args": ["sh", "-c", "touch /tmp/end; exit 7"]}
    message = AnyMessage(type_url=PROCESS_TYPE, value=json.dumps(process).encode())
    exec = task_pb2.ExecProcessRequest(id=id, exec_id="e", spec=message)
    guest.task.exec(exec, timeout=GUEST)
    guest.task.start(task_pb2.StartRequest(id=id, exec_id="e"), timeout=GUEST)
    wait = guest.task.wait(task_pb2.WaitRequest(id=id, exec_id="e"), timeout=GUEST)
    assert wait.exit_status == 7
    guest.task.wait(task_pb2.WaitRequest(id=id), timeout=GUEST)
    text: str = output.get().decode()
    guest.task.delete(task_pb2.DeleteRequest(id=id), timeout=GUEST)
    return text


def _read(guest: Guest, port: int) -> bytes:
    chunks = []
    with dial(guest.vm.address(port), GUEST) as peer:
        while data := peer.recv(65536):
            chunks.append(data)
    return b"".join(chunks)


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_container_of_kuasar_sees_its_own_limits(machine: Guest, runtime: str) -> None:
    specs = load("2.3.0")
    spec = as_kuasar_writes(specs["container"])
    for mount in spec["mounts"]:
        if mount["destination"].startswith("/etc/"):
            mount["source"] = f"{IN_GUEST}/{Path(mount['source']).name}"
        elif mount["destination"] == "/dev/shm":
            mount["source"] = "/dev/shm"
    v2 = machine.vm.console.serving(GUEST)["cgroup"] == "v2"
    file = "memory.max" if v2 else "memory/memory.limit_in_bytes"
    script = f"cat /sys/fs/cgroup/{file} /proc/self/oom_score_adj; umask; cat /etc/hostname"
    said = run(machine, spec, script, specs["exec"], runtime)
    assert said.split() == [str(LIMIT), "980", "0022", "web-0"]


def test_the_captured_container_binds_a_low_port_without_root(machine: Guest) -> None:
    spec = json.loads(CAPTURED.read_text())
    spec["process"]["user"] |= {"uid": 1000, "gid": 1000}
    spec["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
    script = "id -u; nc -l -p 80 & "
    script += "until cat /proc/net/tcp* | grep -q :0050; do usleep 50000; done; echo bound"
    process = load("2.3.0")["exec"]
    assert run(machine, spec, script, process).split() == ["1000", "bound"]


def test_the_sandbox_of_containerd_runs(machine: Guest) -> None:
    specs = load("2.0.0")
    spec = specs["pause"]
    spec["mounts"] = [mount for mount in spec["mounts"] if "rbind" not in mount["options"]]
    spec["root"]["readonly"] = False
    script = "cat /proc/self/oom_score_adj"
    assert run(machine, spec, script, specs["exec"]) == "-998\n"
