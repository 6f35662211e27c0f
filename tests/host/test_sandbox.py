"""`grpc.SandboxService` through the agent, in namespaces of its own."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api import sandbox_pb2
from kuasar_agent.api.sandbox_pb2 import Interface, IPAddress, Route, SyncClockPacket
from kuasar_agent.linux import syscalls
from kuasar_agent.services import sandbox
from kuasar_agent.ttrpc import InvalidArgument, StatusError, Stub, connect, listen
from tests.support.isolation import isolated
from tests.support.links import add_nic, addresses, ip, routes
from tests.support.processes import children_of
from tests.support.timeouts import TIMEOUT

Body = Callable[[Stub], None]


@pytest.fixture
def serve(tmp_path: Path) -> Callable[[Body], None]:
    """Called with a test's body: the agent serves it in network and mount namespaces."""

    def run(body: Body) -> None:
        def inside() -> None:
            # Imported here: a module of the agent may have a hub, which no fork survives.
            from kuasar_agent.agent import Agent, Settings
            from kuasar_agent.boot.config import TaskConfig

            ip("link set lo up")
            (tmp_path / "hostname").write_text("pod-1\n")
            settings = Settings(
                state=str(tmp_path),
                listen=lambda port: listen(f"unix://{tmp_path}/{port}"),
                config=TaskConfig(vsock_peers="any"),
                namespaces=str(tmp_path / "ns"),
            )
            Agent(settings).start()
            try:
                with connect(f"unix://{tmp_path}/1024") as client:
                    body(client.stub(sandbox.SERVICE))
            finally:
                for child in children_of(os.getpid()):
                    os.kill(int(child.split()[0]), 9)

        isolated(inside, syscalls.CLONE_NEWNET)

    return run


def pod(pid: int = 1, sysctls: dict[str, str] | None = None) -> AnyMessage:
    linux = {"security_context": {"namespace_options": {"pid": pid}}, "sysctls": sysctls or {}}
    return AnyMessage(type_url="PodSandboxConfig", value=json.dumps({"linux": linux}).encode())


def interface(name: str, mac: str, *given: str) -> Interface:
    pairs = [address.split("/") for address in given]
    ips = [IPAddress(address=address, mask=prefix) for address, prefix in pairs]
    return Interface(device=name, name=name, hwAddr=mac, IPAddresses=ips, mtu=1500)


def set_up(service: Stub, config: AnyMessage | None = None, **fields: Any) -> None:
    request = sandbox_pb2.SetupSandboxRequest(config=config or pod(), **fields)
    service.setup_sandbox(request, timeout=TIMEOUT)


def status(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(StatusError) as raised:
        call()
    return raised.value.code, raised.value.message


def test_a_pod_is_set_up_whole_and_again(serve: Callable[[Body], None], tmp_path: Path) -> None:
    def body(service: Stub) -> None:
        cards = [
            interface("eth1", add_nic(1, "eth0"), "10.0.1.2/24"),
            interface("eth0", add_nic(2, "eth1"), "10.0.0.2/24", "fd00::2/64"),
        ]
        ways = [Route(gateway="10.0.0.1", device="eth0")]
        ways += [Route(dest=f"10.9.{n}.0/24", gateway="10.0.1.1", device="eth1") for n in range(20)]
        for _ in range(2):
            set_up(service, pod(0, {"kernel.sem": "1 2 3 4"}), interfaces=cards, routes=ways)
            names = [path.name for path in (tmp_path / "ns").iterdir()]
            assert sorted(names) == ["ipc", "pid", "uts"]
            assert addresses("eth0") == ["10.0.0.2/24", "fd00::2/64"]
            assert len(routes()) == 2 + len(ways)
        service.update_routes(sandbox_pb2.UpdateRoutesRequest(), timeout=TIMEOUT)
        assert len(routes()) == 2

    serve(body)


def test_two_callers_at_once_do_each_others_work_no_harm(serve: Callable[[Body], None]) -> None:
    def body(service: Stub) -> None:
        cards = [interface("a", add_nic(1, "b")), interface("b", add_nic(2, "a"))]
        calls = [
            gevent.spawn(set_up, service, pod(0), interfaces=cards[::step]) for step in (1, -1)
        ]
        for call in calls:
            call.get(timeout=TIMEOUT)

    serve(body)


def test_a_card_that_comes_late_is_waited_for(serve: Callable[[Body], None]) -> None:
    def body(service: Stub) -> None:
        card = interface("eth0", "02:00:00:00:00:05", "10.0.0.2/24")
        call = gevent.spawn(set_up, service, interfaces=[card])
        gevent.sleep(0)
        service.check(sandbox_pb2.CheckRequest(), timeout=TIMEOUT)
        add_nic(5, "late")
        call.get(timeout=TIMEOUT)
        assert addresses("eth0") == ["10.0.0.2/24"]

    serve(body)


def test_a_card_that_never_comes_is_named_before_the_deadline(
    serve: Callable[[Body], None],
) -> None:
    def body(service: Stub) -> None:
        request = sandbox_pb2.UpdateInterfacesRequest(
            interfaces=[interface("eth0", add_nic(1, "eth0")), interface("eth1", "2:0:0:0:0:9")]
        )
        found = status(lambda: service.update_interfaces(request, timeout=2.0))
        assert found == (5, "interface eth1: Link not found (Address: 02:00:00:00:00:09)")

    serve(body)


def test_bad_requests_change_nothing(serve: Callable[[Body], None], tmp_path: Path) -> None:
    def body(service: Stub) -> None:
        bad = AnyMessage(type_url="x", value=b"{}")
        assert status(lambda: set_up(service, bad)) == (5, "SetUpSandbox/config/x is not supported")
        none = sandbox_pb2.SetupSandboxRequest()
        text = "SetUpSandbox/config/ is not supported"
        assert status(lambda: service.setup_sandbox(none, timeout=TIMEOUT)) == (5, text)
        broken = AnyMessage(type_url="PodSandboxConfig", value=b"{")
        assert status(lambda: set_up(service, broken))[0] == InvalidArgument.code
        card = interface("eth0", "nonsense")
        assert status(lambda: set_up(service, interfaces=[card]))[0] == InvalidArgument.code
        way = Route(dest="nonsense", device="eth0")
        assert status(lambda: set_up(service, routes=[way]))[0] == InvalidArgument.code
        assert not (tmp_path / "ns").exists()
        unknown = pod(sysctls={"net.no.such": "1"})
        text = "failed to set sysctl net.no.such to 1 error: No such file or directory"
        assert status(lambda: set_up(service, unknown)) == (2, text)
        assert not (tmp_path / "ns").exists()

    serve(body)


def test_the_clock_is_read_and_an_impossible_one_refused(serve: Callable[[Body], None]) -> None:
    def body(service: Stub) -> None:
        before = time.time_ns()
        packet = service.sync_clock(SyncClockPacket(ClientSendTime=before), timeout=TIMEOUT)
        assert packet.ClientSendTime == before
        assert before <= packet.ClientArriveTime <= packet.ServerSendTime <= time.time_ns()
        for delta in (2**63 - 1, -(2**63)):
            request = SyncClockPacket(Delta=delta)
            found = status(partial(service.sync_clock, request, timeout=TIMEOUT))
            assert found == (3, f"clock out of range: moving it by {delta} ns")

    serve(body)


def test_a_command_out_of_time_is_killed(serve: Callable[[Body], None]) -> None:
    def body(service: Stub) -> None:
        request = sandbox_pb2.ExecVMProcessRequest(command="sleep 1000")
        code, _ = status(lambda: service.exec_vm_process(request, timeout=0.5))
        assert code == 4
        with gevent.Timeout(TIMEOUT):
            while any("sleep" in child or "bash" in child for child in children_of(os.getpid())):
                gevent.sleep(0.01)

    serve(body)
