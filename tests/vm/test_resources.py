"""Stats, Update and OOM events in guests with cgroup v1 and v2."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from kuasar_agent.api import cgroups_v1_pb2, task_pb2
from kuasar_agent.ttrpc import dial
from kuasar_host.microvm import MicroVM
from tests.support.guest import SANDBOX, Guest, config, disk
from tests.support.timeouts import GUEST
from tests.support.usage import (
    HOG,
    MIB,
    Metrics,
    bytes_read,
    cpu_ns,
    limits,
    oom_events,
    oom_kills,
    peak,
    stats,
    update,
    working_set,
)
from tests.support.waiting import eventually

PORT = 40000
DISK = 254, 0
"""Major and minor number of the first virtio disk."""
KILLED = 128 + signal.SIGKILL
SMALL = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}

# What a container with a cgroup namespace of its own sees of its limits, last the one that is
# written last.
V1_FILES = (
    "memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes cpu/cpu.shares "
    "cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpuset/cpuset.cpus pids/pids.max"
)
V2_FILES = "memory.max memory.swap.max cpu.weight cpu.max cpuset.cpus pids.max"


@pytest.fixture(scope="module", params=["v1", "v2"])
def machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """A guest with the cgroup version of the parameter; v2 is what the shared one has."""
    if request.param == "v2":
        yield request.getfixturevalue("guest")
        return
    directory = tmp_path_factory.mktemp("v1")
    options = config(directory, disks=[disk(directory)], append="task.cgroup=v1")
    with MicroVM.boot(options) as vm:
        yield Guest(vm)
        print("console:", vm.console.tail(), sep="\n")


@pytest.fixture(autouse=True)
def hangs_end() -> Iterator[None]:
    with gevent.Timeout(GUEST):
        yield


def version(guest: Guest) -> str:
    return str(guest.vm.console.serving(GUEST)["cgroup"])


def create(guest: Guest, resources: dict[str, Any], script: str, stdout: str = "") -> str:
    """The id of a created container with limits, a view of its cgroup and the disk."""
    id = guest.bundle(["sh", "-c", script])
    file = guest.vm.shared / id / "config.json"
    spec = json.loads(file.read_text())
    spec["linux"]["resources"] = {"devices": [{"allow": True, "access": "rwm"}]} | resources
    spec["linux"]["namespaces"].append({"type": "cgroup"})
    node = {"path": "/dev/disk", "type": "b", "major": DISK[0], "minor": DISK[1]}
    spec["linux"]["devices"] = [node]
    view = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
    spec["mounts"].append({**view, "options": ["ro", "nosuid", "noexec", "nodev"]})
    file.write_text(json.dumps(spec))
    guest.task.create(task_pb2.CreateTaskRequest(id=id, stdout=stdout), timeout=GUEST)
    return id


def start(guest: Guest, id: str) -> None:
    guest.task.start(task_pb2.StartRequest(id=id), timeout=GUEST)


def wait(guest: Guest, id: str) -> int:
    return int(guest.task.wait(task_pb2.WaitRequest(id=id), timeout=GUEST).exit_status)


def delete(guest: Guest, id: str) -> None:
    guest.task.delete(task_pb2.DeleteRequest(id=id), timeout=GUEST)


def read(guest: Guest, port: int) -> bytes:
    chunks = []
    with dial(guest.vm.address(port), GUEST) as peer:
        while data := peer.recv(65536):
            chunks.append(data)
    return b"".join(chunks)


def test_stats_move_with_what_the_container_does(machine: Guest) -> None:
    script = f"{HOG}; dd if=/dev/disk of=/dev/null bs={MIB} count=8 iflag=direct; "
    script += "while :; do :; done"
    id = create(machine, {"pids": {"limit": 77}}, script)
    # The kernel of the guest counts on v1 only what it throttles.
    rate = {"major": DISK[0], "minor": DISK[1], "rate": 1 << 40}
    update(machine.task, id, {"blockIO": {"throttleReadBpsDevice": [rate]}})
    before = stats(machine.task, id)
    assert isinstance(before, cgroups_v1_pb2.Metrics) == (version(machine) == "v1")
    start(machine, id)

    def done(metrics: Metrics) -> bool:
        busy = cpu_ns(metrics) > cpu_ns(before) + 500_000_000
        return busy and bytes_read(metrics) >= 8 * MIB

    used = eventually(lambda: stats(machine.task, id), done, GUEST / 2)
    assert done(used), used
    assert peak(used) > 64 * MIB > working_set(used) > 0
    assert used.pids.limit == 77
    assert used.pids.current >= 1
    delete(machine, id)


def test_new_limits_are_what_the_container_has(machine: Guest) -> None:
    v1 = version(machine) == "v1"
    files = V1_FILES if v1 else V2_FILES
    last = files.split()[-1]
    script = f"cd /sys/fs/cgroup; until grep -q 33 {last}; do usleep 50000; done; cat {files}"
    id = create(machine, SMALL, script, f"vsock://3:{PORT}")
    output = gevent.spawn(read, machine, PORT)
    start(machine, id)
    memory = {"limit": 48 * MIB, "swap": 64 * MIB}
    cpu = {"shares": 512, "quota": 80_000, "period": 200_000, "cpus": "0-63"}
    update(machine.task, id, {"memory": memory, "cpu": cpu, "pids": {"limit": 33}})
    assert limits(stats(machine.task, id)) == (48 * MIB, 64 * MIB)
    assert wait(machine, id) == 0
    if v1:
        expected = [str(48 * MIB), str(64 * MIB), "512", "80000", "200000", "0", "33"]
    else:
        expected = [str(48 * MIB), str(16 * MIB), "20", "80000 200000", "0", "33"]
    assert output.get().decode().splitlines() == expected
    delete(machine, id)


def test_every_child_that_the_oom_killer_takes_is_told(machine: Guest) -> None:
    id = create(machine, SMALL, f"{HOG}; {HOG}; exec sleep 1000")
    with machine.vm.connect() as client:
        told = oom_events(client.stub(SANDBOX))
        start(machine, id)
        assert [next(told), next(told)] == [id, id]
    assert oom_kills(stats(machine.task, id)) == 2
    delete(machine, id)


def test_the_kill_of_the_first_process_is_told_before_its_exit(machine: Guest) -> None:
    order = []
    id = create(machine, SMALL, f"exec {HOG}")

    def hear() -> None:
        with machine.vm.connect() as client:
            assert next(oom_events(client.stub(SANDBOX))) == id
        order.append("oom")

    def exit() -> None:
        assert wait(machine, id) == KILLED
        order.append("exit")

    waiting = [gevent.spawn(hear), gevent.spawn(exit)]
    start(machine, id)
    gevent.joinall(waiting, raise_error=True)
    assert order == ["oom", "exit"]
    delete(machine, id)
