"""How long SetupSandbox takes: two interfaces and twenty routes, for the first time and again."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.table import show

RUNS = 5

# What the agent has imported when it begins to serve, then one pod after the other.
_MEASURE = """
import os, sys, time
from kuasar_agent.agent import Agent, Settings, warm_up
from kuasar_agent.linux import syscalls
from kuasar_agent.services.sandbox import decode_interfaces, decode_routes
from kuasar_agent.api.sandbox_pb2 import Interface, IPAddress, Route

warm, directory = sys.argv[1:]
names = "eth0", "eth1"
agent = Agent(Settings(state=directory, listen=None, namespaces=directory + "/ns"))
agent.reaper.start()
if warm == "warm":
    warm_up()

def cards(names):
    for number, name in enumerate(names):
        ips = [IPAddress(address=f"10.0.{number}.2", mask="24")]
        ips.append(IPAddress(address=f"fd00:{number}::2", mask="64", family=1))
        mac = f"02:00:00:00:00:0{number}"
        yield Interface(name=name, hwAddr=mac, mtu=1450, IPAddresses=ips)

ways = [Route(gateway="10.0.0.1", device="eth0")]
ways += [Route(dest=f"10.9.{n}.0/24", gateway="10.0.1.1", device="eth1") for n in range(19)]

pod = None
for _ in range(2):
    begun = time.perf_counter()
    from kuasar_agent.sandbox.podconfig import PodConfig

    pod = pod or agent._make_pod()
    config = PodConfig({"kernel.shmmni": "4000"}, True)
    pod.set_up(config, decode_interfaces(cards(names)), decode_routes(ways), None)
    print((time.perf_counter() - begun) * 1000)
os.kill(pod._namespaces._pause.pid, 9)
"""
_ENTER = """
ip link set lo up
for n in 0 1; do
    ip link add dev nic$n address 02:00:00:00:00:0$n type veth peer name far$n
    ip link set far$n up
done
exec "$@"
"""


def main() -> None:
    rows: list[list[str | float]] = []
    for kind, name in (("cold", "nothing imported"), ("warm", "imported after serving")):
        first, again = zip(*(_measure(kind) for _ in range(RUNS)), strict=True)
        rows.append([f"first, {name}", *_summary(first)])
        rows.append([f"again, {name}", *_summary(again)])
    load = os.getloadavg()[0]
    title = "SetupSandbox with 3 namespaces, 2 interfaces, 20 routes"
    show(f"{title} ({os.cpu_count()} CPUs, load {load:.1f}), ms", ["", "min", "p50", "max"], rows)


def _measure(kind: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="kuasar-") as directory:
        Path(directory, "hostname").write_text("pod-1\n")
        command = [sys.executable, "-c", _MEASURE, kind, directory]
        enter = ["unshare", "-m", "-n", "sh", "-ec", _ENTER, "sh", *command]
        result = subprocess.run(enter, check=True, stdout=subprocess.PIPE, text=True)
    first, again = map(float, result.stdout.split())
    return first, again


def _summary(values: tuple[float, ...]) -> list[str | float]:
    return [min(values), sorted(values)[len(values) // 2], max(values)]
