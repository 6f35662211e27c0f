"""A container's life, call by call: the agent, containerd-shim-runc-v2, and the bare runtime.

All take their turns in the same run, with the same bundle. A bare command is what the agent and the
shim execute for the call, started and waited for by this process; `exec` is Exec and Start.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api import task_pb2
from kuasar_agent.linux import syscalls
from kuasar_agent.linux.mount import unmount
from tests.bench.start import percentile
from tests.bench.table import show
from tests.support.agent import Agent, running_agent
from tests.support.isolation import is_mounted, make_mounts_private
from tests.support.shim import Shim
from tests.support.tasks import PROCESS_TYPE
from tests.support.timeouts import TIMEOUT

ROUNDS = 30
CALLS = ("create", "start", "exec", "delete exec", "delete")
_V2_BESIDE_V1 = "/sys/fs/cgroup/unified"


class Peer(Protocol):
    """What has containers and execs; `exec` is one that ends at once."""

    def create(self, id: str) -> None: ...
    def start(self, id: str) -> None: ...
    def exec(self, id: str) -> None: ...
    def end_exec(self, id: str) -> None: ...
    def delete_exec(self, id: str) -> None: ...
    def end(self, id: str) -> None: ...
    def delete(self, id: str) -> None: ...


def main() -> None:
    syscalls.set_child_subreaper()
    _let_crun_run()
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peers: dict[str, tuple[Agent, Peer]] = {}
        for runtime in ("crun", "runc"):
            place = directory / runtime
            place.mkdir()
            agent = stack.enter_context(running_agent(place, runtime))
            peers[f"{runtime} alone"] = agent, Bare(agent)
            peers[f"agent, {runtime}"] = agent, Served(agent, _caller(agent), agent.create)
        shim = stack.enter_context(Shim(directory / "shim"))
        peers["shim, runc"] = agent, Served(agent, shim.call, _creator(shim, agent))
        for round in range(ROUNDS + 1):
            for name, (agent, peer) in peers.items():
                for call, ms in _live(agent, peer).items():
                    if round:  # the first one fills caches
                        times[name][call].append(ms)
        # What crun writes where it expects a v2 tree stays behind as plain directories.
        shutil.rmtree(f"{_V2_BESIDE_V1}/{peers['crun alone'][0].cgroup}", ignore_errors=True)
    _show(times)


def _show(times: dict[str, dict[str, list[float]]]) -> None:
    rows: list[list[str | float]] = []
    for call in CALLS:
        for name, of in times.items():
            alone = times[f"{name.rpartition(' ')[2]} alone"] if "," in name else of
            p50 = percentile(of[call], 0.5)
            over = p50 - percentile(alone[call], 0.5)
            added = f"{over:+.1f}" if "," in name and call != "delete exec" else ""
            rows.append([f"{call}: {name}", p50, percentile(of[call], 0.99), added])
    show(
        f"Calls of a container's life, {ROUNDS} times each in turn "
        f"({os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}), ms",
        ["", "p50", "p99", "over the command"],
        rows,
    )


def _live(agent: Agent, peer: Peer) -> dict[str, float]:
    """One life; milliseconds of each call."""
    id = agent.bundle("sleep", "1000")
    times = {name: _timed(getattr(peer, name), id) for name in ("create", "start", "exec")}
    peer.end_exec(id)
    times["delete exec"] = _timed(peer.delete_exec, id)
    peer.end(id)
    times["delete"] = _timed(peer.delete, id)
    return times


def _timed(call: Callable[[str], None], id: str) -> float:
    begun = time.monotonic()
    call(id)
    return (time.monotonic() - begun) * 1000


class Served:
    """The Task service of the agent or the shim."""

    def __init__(
        self, agent: Agent, call: Callable[[str, Any], Any], create: Callable[[str], int]
    ) -> None:
        self._agent = agent
        self._call = call
        self._create = create

    def create(self, id: str) -> None:
        self._create(id)

    def start(self, id: str) -> None:
        self._call("start", task_pb2.StartRequest(id=id))

    def exec(self, id: str) -> None:
        process = json.dumps(self._agent.spec(id, ["true"])["process"]).encode()
        spec = AnyMessage(type_url=PROCESS_TYPE, value=process)
        self._call("exec", task_pb2.ExecProcessRequest(id=id, exec_id="x", spec=spec))
        self._call("start", task_pb2.StartRequest(id=id, exec_id="x"))

    def end_exec(self, id: str) -> None:
        self._call("wait", task_pb2.WaitRequest(id=id, exec_id="x"))

    def delete_exec(self, id: str) -> None:
        self._call("delete", task_pb2.DeleteRequest(id=id, exec_id="x"))

    def end(self, id: str) -> None:
        self._call("kill", task_pb2.KillRequest(id=id, signal=signal.SIGKILL))
        self._call("wait", task_pb2.WaitRequest(id=id))

    def delete(self, id: str) -> None:
        self._call("delete", task_pb2.DeleteRequest(id=id))


class Bare:
    """The runtime's commands as this process runs them."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def create(self, id: str) -> None:
        bundle = self._agent.state / id
        self._run("create", "--bundle", str(bundle), "--pid-file", f"{bundle}/init.pid", id)

    def start(self, id: str) -> None:
        self._run("start", id)

    def exec(self, id: str) -> None:
        bundle = self._agent.state / id
        (bundle / "process").write_text(json.dumps(self._agent.spec(id, ["true"])["process"]))
        self._run(
            "exec", "--process", f"{bundle}/process", "--pid-file", f"{bundle}/x.pid",
            "--detach", id,
        )  # fmt: skip

    def end_exec(self, id: str) -> None:
        self._await_end(id, "x.pid")

    def delete_exec(self, id: str) -> None:
        """There is nothing to run."""

    def end(self, id: str) -> None:
        self._run("kill", id, str(int(signal.SIGKILL)))
        self._await_end(id, "init.pid")

    def delete(self, id: str) -> None:
        self._run("delete", "--force", id)

    def _run(self, *args: str) -> None:
        root = self._agent.runtime_root / "k8s.io"
        command = [self._agent.runtime, "--root", str(root), "--log", os.devnull, *args]
        subprocess.run(
            command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _await_end(self, id: str, pid_file: str) -> None:
        os.waitpid(int((self._agent.state / id / pid_file).read_text()), 0)


def _caller(agent: Agent) -> Callable[[str, Any], Any]:
    return lambda name, request: getattr(agent.tasks, name)(request, timeout=TIMEOUT)


def _creator(shim: Shim, agent: Agent) -> Callable[[str], int]:
    return lambda id: shim.create(id, agent.state / id)


def _let_crun_run() -> None:
    """crun refuses cgroup v1 with a v2 tree next to it, which a host may have."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    make_mounts_private()
    if is_mounted(_V2_BESIDE_V1):
        unmount(_V2_BESIDE_V1)
