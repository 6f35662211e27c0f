"""What programs find in the guest's kernel, as on a node: IPv6 off, drivers, sysctls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from operator import eq
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api import sandbox_pb2
from kuasar_host.microvm import MicroVM
from tests.support.guest import Guest, Result, config
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

MIB = 1 << 20
CAPABILITIES = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"]
# Kinds of interfaces with what `ip link add` needs to know besides.
LINKS = {
    "bridge": "name b0 type bridge",
    "dummy": "name d0 type dummy",
    "veth": "name v0 type veth",
    "macvlan": "link d0 name m0 type macvlan",
    "ipvlan": "link v0 name i0 type ipvlan",
    "8021q": "link d0 name d0.5 type vlan id 5",
}
# An echo request through an ICMP socket of a user (icmp(7)).
PING = """
import socket
icmp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
icmp.settimeout(30)
icmp.sendto(b"\\x08\\0" + bytes(6), ("127.0.0.1", 0))
print("pong" if icmp.recv(64)[0] == 0 else "no answer")
"""
# iptables' first question, IPT_SO_GET_INFO for the table `filter`, and nft's first table: a batch
# of NFNL_MSG_BATCH_BEGIN, NFT_MSG_NEWTABLE for the family inet, and NFNL_MSG_BATCH_END.
FILTERS = """
import ctypes, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
info, size = ctypes.create_string_buffer(b"filter", 84), ctypes.c_uint32(84)
answer = libc.getsockopt(raw.fileno(), socket.IPPROTO_IP, 64, info, ctypes.byref(size))
print("iptables", answer)
nft = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
def message(kind, flags, family, body=b""):
    size, subsystem = 20 + len(body), socket.htons(10)
    return struct.pack("=IHHIIBBH", size, kind, flags, 1, 0, family, 0, subsystem) + body
name = struct.pack("=HH", 6, 1) + b"t\\0\\0\\0"
nft.send(message(16, 1, 0) + message(10 << 8, 0x405, 1, name) + message(17, 1, 0))
_, kind, _, _, _, error = struct.unpack_from("=IHHIIi", nft.recv(4096))
print("nft", kind, error)
"""


class Privileged(Guest):
    """Containers as a privileged pod's, and those of an ordinary user."""

    capabilities: Sequence[str] = CAPABILITIES
    uid = 0

    def bundle(self, command: Sequence[str], *, guest_pids: bool = False) -> str:
        id = super().bundle(command, guest_pids=guest_pids)
        file = self.vm.shared / id / "config.json"
        spec = json.loads(file.read_text())
        process = spec["process"]
        process["user"] = {"uid": self.uid, "gid": self.uid}
        process["capabilities"] = {
            kind: list(self.capabilities) for kind in ("bounding", "effective", "permitted")
        }
        # The guest's Python, and the node by which a program asks for the driver of tun.
        spec["mounts"] += [
            {"destination": path, "source": path, "type": "bind", "options": ["rbind", "ro"]}
            for path in ("/usr", "/lib", "/lib64")
        ]
        spec["linux"]["devices"] = [
            {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o666}
        ]
        spec["linux"]["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
        file.write_text(json.dumps(spec))
        return id

    def as_user(self, *command: str) -> Result:
        """Run a command as a user without any capability."""
        self.capabilities, self.uid = (), 1000
        try:
            return self.run(*command)
        finally:
            self.capabilities, self.uid = CAPABILITIES, 0

    def sh(self, command: str) -> str:
        request = sandbox_pb2.ExecVMProcessRequest(command=command)
        return str(self.sandbox.exec_vm_process(request, timeout=TIMEOUT).out)

    def set_up(self, sysctls: dict[str, str], **fields: Any) -> None:
        """SetupSandbox with CRI's own message, in the form of protobuf."""
        from kuasar_agent.api import cri_pb2

        linux = cri_pb2.LinuxPodSandboxConfig(sysctls=sysctls)
        value = cri_pb2.PodSandboxConfig(linux=linux).SerializeToString()
        pod = AnyMessage(type_url="type.googleapis.com/runtime.v1.PodSandboxConfig", value=value)
        request = sandbox_pb2.SetupSandboxRequest(config=pod, **fields)
        self.sandbox.setup_sandbox(request, timeout=TIMEOUT)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Privileged]:
    directory = tmp_path_factory.mktemp("vm")
    options = config(
        directory,
        root_ports=1,
        append="ipv6.disable=1",
        arguments=["-device", "virtio-balloon-pci,id=balloon0,free-page-reporting=on"],
    )
    with MicroVM.boot(options) as vm:
        yield Privileged(vm)
        print("console:", vm.console.tail(), sep="\n")


def test_a_user_may_bind_port_80_and_ping_as_under_containerd(guest: Privileged) -> None:
    script = (
        "id -u; nc -l -p 80 & while ! echo hello | nc 127.0.0.1 80; do usleep 50000; done; wait"
    )
    result = guest.as_user("sh", "-c", script)
    assert result.stdout == b"1000\nhello\n", result
    result = guest.as_user("/usr/bin/python3.11", "-c", PING)
    assert result.stdout == b"pong\n", result


def test_a_pods_own_sysctl_wins(guest: Privileged) -> None:
    read = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range"
    assert guest.sh(read).split() == ["0", "0", "2147483647"]
    guest.set_up({"net.ipv4.ip_unprivileged_port_start": "1024"})
    assert guest.sh(read).split() == ["1024", "0", "2147483647"]
    assert guest.as_user("nc", "-l", "-p", "80").status != 0


def test_a_pod_starts_without_ipv6_and_one_line_says_what_was_left_out(guest: Privileged) -> None:
    mac = "02:00:00:00:00:0a"
    with guest.vm.qmp() as qmp:
        qmp.execute("netdev_add", type="hubport", id="net1", hubid=0)
        qmp.execute(
            "device_add", driver="virtio-net-pci", id="nic1", netdev="net1", mac=mac, bus="rp1"
        )
    ips = [
        sandbox_pb2.IPAddress(address="10.0.0.2", mask="24"),
        sandbox_pb2.IPAddress(address="fe80::ff:fe00:a", mask="64", family=sandbox_pb2.v6),
    ]
    routes = [
        sandbox_pb2.Route(gateway="10.0.0.1", device="eth0"),
        sandbox_pb2.Route(dest="fe80::/64", device="eth0", family=sandbox_pb2.v6),
    ]
    card = sandbox_pb2.Interface(device="eth0", name="eth0", hwAddr=mac, IPAddresses=ips)
    guest.set_up({}, interfaces=[card], routes=routes)
    assert " 10.0.0.2/24 " in guest.sh("ip addr show dev eth0")
    assert "default via 10.0.0.1 dev eth0" in guest.sh("ip route")
    console = (guest.vm.directory / "console.log").read_text(errors="replace")
    (line,) = [line for line in console.splitlines() if "IPv6 is off, left out" in line]
    assert 'addresses="eth0 fe80::ff:fe00:a/64"' in line
    assert "dst: fe80::/64" in line


def test_a_privileged_container_makes_interfaces_of_every_kind(guest: Privileged) -> None:
    script = "".join(f"ip link add {words} || echo no {kind};" for kind, words in LINKS.items())
    # vxlan wants a number that busybox cannot give: its driver comes all the same.
    script += "brctl addbr b1 || echo no brctl; tunctl -t tun0 >&2 || echo no tun;"
    script += "ip link add name x0 type vxlan 2>&-; ls -d /sys/module/vxlan;"
    script += "ls /sys/class/net"
    result = guest.run("sh", "-c", script)
    driver, *names = result.stdout.decode().split()
    assert driver == "/sys/module/vxlan", result
    assert {"b0", "b1", "d0", "v0", "m0", "i0", "d0.5", "tun0"} <= set(names), result


def test_packet_filters_of_both_kinds_answer_in_a_container(guest: Privileged) -> None:
    result = guest.run("/usr/bin/python3.11", "-c", FILTERS)
    assert result.stdout == b"iptables 0\nnft 2 0\n", result


def test_the_balloon_gives_memory_back_and_reports_free_pages(guest: Privileged) -> None:
    with guest.vm.qmp() as qmp:

        def actual() -> int:
            return int(qmp.execute("query-balloon")["actual"])

        whole = actual()
        # VIRTIO_BALLOON_F_REPORTING is bit 5 of the features that the driver accepted.
        features = "cut -c 6 /sys/bus/virtio/drivers/virtio_balloon/virtio*/features"
        assert guest.sh(features) == "1\n"
        for wanted in (whole - 64 * MIB, whole):
            qmp.execute("balloon", value=wanted)
            assert eventually(actual, partial(eq, wanted), within=TIMEOUT) == wanted


def test_the_guest_has_entropy_of_the_host_and_nodes_that_load_drivers(guest: Privileged) -> None:
    assert "net/tun" in guest.sh("cd /dev; ls net/tun")
