"""A pod set up in a microVM as Kuasar's sandboxer does it, and seen from its containers."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api import sandbox_pb2, task_pb2
from kuasar_agent.api.sandbox_pb2 import SyncClockPacket
from kuasar_agent.ttrpc import NotFound, Unknown
from kuasar_host.microvm import MicroVM
from kuasar_host.qmp import Qmp
from tests.support.guest import Guest, Result, config
from tests.support.timeouts import TIMEOUT

HOUR = 3600 * 10**9
MILLISECOND = 10**6
ZOMBIES = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '"


class Pod(Guest):
    """A guest to set up, and its containers in the namespaces of the pod."""

    def __init__(self, vm: MicroVM) -> None:
        super().__init__(vm)
        self.qmp: Qmp = vm.qmp()
        self.shared_kinds: tuple[str, ...] = ()

    def set_up(self, *, pid: int, sysctls: dict[str, str] | None = None, **fields: Any) -> None:
        """SetupSandbox as the host sends it; `pid` is a NamespaceMode."""
        context = {"namespace_options": {"network": 0, "pid": pid, "ipc": 0, "target_id": ""}}
        linux = {"security_context": context, "sysctls": sysctls or {}, "overhead": None}
        pod = {"hostname": "pod-1", "dns_config": None, "linux": linux, "windows": None}
        any_pod = AnyMessage(type_url="PodSandboxConfig", value=json.dumps(pod).encode())
        request = sandbox_pb2.SetupSandboxRequest(config=any_pod, **fields)
        self.sandbox.setup_sandbox(request, timeout=TIMEOUT)

    def bundle(self, command: Any, *, guest_pids: bool = False) -> str:
        id = super().bundle(command, guest_pids=guest_pids)
        file = self.vm.shared / id / "config.json"
        spec = json.loads(file.read_text())
        for namespace in spec["linux"]["namespaces"]:
            if namespace["type"] in self.shared_kinds:
                namespace["path"] = f"/run/sandbox-ns/{namespace['type']}"
        file.write_text(json.dumps(spec))
        return id

    def run_in(self, kinds: tuple[str, ...], *command: str) -> Result:
        """Run a container that shares these namespaces with the pod."""
        with self.sharing(kinds):
            return self.run(*command)

    @contextlib.contextmanager
    def sharing(self, kinds: tuple[str, ...]) -> Iterator[None]:
        self.shared_kinds = kinds
        try:
            yield
        finally:
            self.shared_kinds = ()

    @contextlib.contextmanager
    def running(self, kinds: tuple[str, ...], *command: str) -> Iterator[None]:
        """A container that runs for the time of a `with` block."""
        with self.sharing(kinds):
            id = self.bundle(command)
        self.task.create(task_pb2.CreateTaskRequest(id=id), timeout=TIMEOUT)
        self.task.start(task_pb2.StartRequest(id=id), timeout=TIMEOUT)
        try:
            yield
        finally:
            self.task.kill(task_pb2.KillRequest(id=id, signal=9), timeout=TIMEOUT)
            self.task.wait(task_pb2.WaitRequest(id=id), timeout=TIMEOUT)
            self.task.delete(task_pb2.DeleteRequest(id=id), timeout=TIMEOUT)

    def sh(self, command: str, stdin: bytes = b"") -> str:
        """ExecVMProcess."""
        request = sandbox_pb2.ExecVMProcessRequest(command=command, stdin=stdin)
        return str(self.sandbox.exec_vm_process(request, timeout=TIMEOUT).out)

    def plug(self, id: str, port: str, mac: str) -> None:
        """A network card at the hub that all cards are connected to."""
        self.qmp.execute("netdev_add", type="hubport", id=f"net-{id}", hubid=0)
        self.qmp.execute(
            "device_add", driver="virtio-net-pci", id=id, netdev=f"net-{id}", mac=mac, bus=port
        )

    def read_on_console(self, text: str) -> None:
        """Wait until the agent said it."""
        with gevent.Timeout(TIMEOUT):
            while text not in (self.vm.directory / "console.log").read_text(errors="replace"):
                gevent.sleep(0.02)


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    directory = tmp_path_factory.mktemp("vm")
    (directory / "shared").mkdir()
    (directory / "shared/hostname").write_text("pod-1\n")
    with MicroVM.boot(config(directory, root_ports=2)) as vm:
        pod = Pod(vm)
        yield pod
        pod.qmp.close()
        print("console:", vm.console.tail(), sep="\n")


def interface(name: str, mac: str, *addresses: str) -> sandbox_pb2.Interface:
    pairs = [address.split("/") for address in addresses]
    ips = [sandbox_pb2.IPAddress(address=ip, mask=prefix) for ip, prefix in pairs]
    return sandbox_pb2.Interface(
        device=name, name=name, hwAddr=mac, IPAddresses=ips, mtu=1450, raw_flags=0x1043
    )


def test_1_a_pod_that_does_not_share_pids(pod: Pod) -> None:
    pod.set_up(pid=1, sysctls={"kernel.shmmni": "4000", "net.core.somaxconn": "1024"})
    assert pod.sh("ls /run/sandbox-ns; stat -c %a /run/sandbox-ns") == "ipc\nuts\n711\n"
    kinds = ("ipc", "uts")
    script = "hostname; cat /proc/sys/kernel/shmmni; readlink /proc/self/ns/ipc"
    first = pod.run_in(kinds, "sh", "-c", script)
    assert first.stdout.decode().split()[:2] == ["pod-1", "4000"]
    assert pod.run_in(kinds, "sh", "-c", script) == first
    # The guest's own namespaces are as they were.
    assert pod.sh("cat /proc/sys/kernel/shmmni /proc/sys/net/core/somaxconn") == "4096\n1024\n"
    assert pod.sh("cat /proc/sys/kernel/hostname") == "(none)\n"
    with pod.running(kinds, "sleep", "1000"):
        assert b"sleep" not in pod.run_in(kinds, "ps").stdout


def test_2_a_pod_that_shares_pids(pod: Pod) -> None:
    for _ in range(2):
        pod.set_up(pid=0)
        assert pod.sh("ls /run/sandbox-ns; grep -c nsfs /proc/mounts") == "ipc\npid\nuts\n3\n"
    kinds = ("ipc", "uts", "pid")
    with pod.running(kinds, "sleep", "1000"):
        assert b"sleep 1000" in pod.run_in(kinds, "ps").stdout
    orphans = "for i in $(seq 50); do (true &); done; n=0"
    wait = f"while [ $({ZOMBIES}) != 0 ] && [ $n -lt 600 ]; do usleep 100000; n=$((n+1)); done"
    result = pod.run_in(kinds, "sh", "-c", f"{orphans}; {wait}; {ZOMBIES}; cat /proc/1/comm")
    assert result.stdout == b"0\nsleep\n", result


def test_3_cards_get_their_names_also_one_that_comes_late(pod: Pod) -> None:
    macs = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
    pod.plug("nic1", "rp1", macs[0])
    wanted = [
        interface("eth1", macs[0], "10.0.1.2/24", "fe80::ff:fe00:a/64"),
        interface("eth0", macs[1], "10.0.0.2/24", "fd00::2/64"),
    ]
    routes = [
        sandbox_pb2.Route(gateway="10.0.0.1", device="eth0"),
        sandbox_pb2.Route(dest="10.0.0.0/24", device="eth0", scope=253),
        sandbox_pb2.Route(gateway="fd00::1", device="eth0", family=sandbox_pb2.v6),
    ]
    call = gevent.spawn(pod.set_up, pid=0, interfaces=wanted, routes=routes)
    pod.read_on_console('msg="waiting for device" src=devices device="NIC ')
    pod.plug("nic2", "rp2", macs[1])
    call.get(timeout=TIMEOUT)
    # Both are up now: the second time names are swapped again and everything stays the same.
    for _ in range(2):
        found = pod.sh("cat /sys/class/net/eth0/address /sys/class/net/eth1/address")
        assert found.split() == [macs[1], macs[0]]
        assert pod.sh("cat /sys/class/net/eth0/mtu") == "1450\n"
        listed = pod.sh("ip addr show")
        for address in ("10.0.1.2/24", "10.0.0.2/24", "fd00::2/64", "fe80::ff:fe00:a/64"):
            assert f" {address} " in listed
        assert "default via 10.0.0.1 dev eth0" in pod.sh("ip route")
        assert "default via fd00::1 dev eth0" in pod.sh("ip -6 route")
        wanted[0].name, wanted[1].name = "eth0", "eth1"
        request = sandbox_pb2.UpdateInterfacesRequest(interfaces=wanted)
        pod.sandbox.update_interfaces(request, timeout=TIMEOUT)
        swapped = pod.sh("cat /sys/class/net/eth0/address /sys/class/net/eth1/address")
        assert swapped.split() == [macs[0], macs[1]]
        wanted[0].name, wanted[1].name = "eth1", "eth0"
        pod.set_up(pid=0, interfaces=wanted, routes=routes)


def test_4_a_card_that_never_comes_is_named_before_the_deadline(pod: Pod) -> None:
    request = sandbox_pb2.UpdateInterfacesRequest(
        interfaces=[interface("eth5", "02:00:00:00:00:99")]
    )
    with pytest.raises(NotFound) as raised:
        pod.sandbox.update_interfaces(request, timeout=3.0)
    assert raised.value.message == "interface eth5: Link not found (Address: 02:00:00:00:00:99)"


def sync(pod: Pod, host_now: int) -> SyncClockPacket:
    """One measurement; the host's clock shows `host_now` (ns) and goes on from there."""
    began = time.monotonic_ns()

    def now() -> int:
        return host_now + time.monotonic_ns() - began

    packet = pod.sandbox.sync_clock(SyncClockPacket(ClientSendTime=now()), timeout=TIMEOUT)
    packet.ServerArriveTime = now()
    ahead = packet.ClientSendTime - packet.ClientArriveTime
    packet.Delta = int((ahead + packet.ServerArriveTime - packet.ServerSendTime) / 2)
    assert isinstance(packet, SyncClockPacket)
    return packet


@pytest.mark.parametrize("step", [5 * HOUR, -7 * HOUR, 20 * MILLISECOND, -20 * MILLISECOND])
def test_the_clock_follows_the_host(pod: Pod, step: int) -> None:
    before = sync(pod, time.time_ns())
    host_now = time.time_ns() - before.Delta + step  # the guest's time, moved by `step`
    began = time.monotonic_ns()
    packet = sync(pod, host_now)
    asked = packet.Delta
    assert pod.sandbox.sync_clock(packet, timeout=TIMEOUT) == packet
    after = sync(pod, host_now + time.monotonic_ns() - began)
    # What is left is the measurement's own error, a part of the round trip.
    trip = packet.ServerArriveTime - packet.ClientSendTime
    trip += after.ServerArriveTime - after.ClientSendTime
    assert abs(after.Delta) <= trip
    assert abs(asked - step) <= trip + before.ServerArriveTime - before.ClientSendTime


def test_a_command_in_the_guest(pod: Pod) -> None:
    assert pod.sh("cat; echo $((6 * 7))", b"in ") == "in 42\n"
    assert pod.sh("readlink /proc/self/fd/0") == "/dev/null\n"
    with pytest.raises(Unknown) as raised:
        pod.sh("echo no >&2; exit 3")
    text = "cmd echo no >&2; exit 3 failed with exit code 3 and error message no\n"
    assert raised.value.message == text
