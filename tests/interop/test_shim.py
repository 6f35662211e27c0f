"""The agent beside containerd-shim-runc-v2: one script, one bundle, what each of them answers.

The script goes through a container's life and asks for what cannot be at every point of it. Of an
answer counts its code or, of a call that succeeds, the state or exit code that it tells. The events
have to be the same ones in the same order.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api import task_pb2
from kuasar_agent.api.task_types_pb2 import Status
from kuasar_agent.ttrpc import Code, StatusError
from tests.support.agent import Agent, running_agent
from tests.support.shim import Shim
from tests.support.task_events import events_until_delete
from tests.support.tasks import PROCESS_TYPE
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

PRECONDITION = ("FAILED_PRECONDITION", "UNKNOWN", "the shim's own errors about states have no code")
NEVER_RAN = "for the shim a failed exec stays created, and may be started once more"

DIFFERENCES = {
    "created: create again": (
        "ALREADY_EXISTS",
        "UNKNOWN",
        "the shim leaves it to runc, whose words have no code; the agent touches nothing",
    ),
    "created: exec": (
        "FAILED_PRECONDITION",
        "ok",
        "the shim finds out when the exec is started",
    ),
    "exec: bad spec": ("INVALID_ARGUMENT", "UNKNOWN", "Go's JSON errors have no code"),
    "exec: state of what did not start": ("STOPPED", "CREATED", NEVER_RAN),
    "exec: delete what did not start": ("exit 255", "exit 0", NEVER_RAN),
    **dict.fromkeys(
        [
            "created: pause",
            "created: resume",
            "running: start again",
            "running: resume",
            "exec: start again",
            "paused: pause again",
            "paused: start",
            "paused: exec",
            "stopped: start",
            "stopped: pause",
            "stopped: exec",
        ],
        PRECONDITION,
    ),
}
"""Step: what the agent answers, what the shim answers, and why they differ.

Not in the script: an Exec request without a spec ends the shim with a nil pointer.
"""

Call = Callable[[str, Any], Any]


class Script:
    """Runs the steps on one peer and notes the answers under the steps' names."""

    def __init__(self, call: Call, create: Callable[[str], int], id: str, agent: Agent) -> None:
        self.answers: dict[str, str] = {}
        self.exits: list[int] = []
        """Nanoseconds since the epoch at which processes ended, as told."""
        self._call = call
        self._create = create
        self._id = id
        self._agent = agent

    def run(self) -> None:
        self._unknown()
        self._created()
        self._running()
        self._execs()
        self._paused()
        self._stopped()

    def _unknown(self) -> None:
        for name in ("state", "start", "wait", "kill", "delete", "pids", "pause", "resume"):
            self._note(f"unknown: {name}", self._step, name, id="unknown")
        self._note("unknown: exec", self._exec, "x", "true", id="unknown")

    def _created(self) -> None:
        self._note("created: create", self._create, self._id)
        self._note("created: create again", self._create, self._id)
        self._note("created: state", self._state)
        self._note("created: state of an unknown exec", self._state, "unknown")
        self._note("created: pause", self._step, "pause")
        self._note("created: resume", self._step, "resume")
        self._note("created: exec", self._exec, "c", "true")
        self._note("created: close_io", self._step, "close_io", stdin=True)
        self._note("created: resize_pty", self._step, "resize_pty", width=80, height=24)
        self._note("created: start of an unknown exec", self._step, "start", exec_id="unknown")

    def _running(self) -> None:
        self._note("running: start", self._step, "start")
        self._note("running: start again", self._step, "start")
        self._note("running: state", self._state)
        self._note("running: resume", self._step, "resume")
        self._note("running: kill with signal 0", self._step, "kill", signal=0)
        self._note("running: kill of an unknown exec", self._step, "kill", exec_id="y", signal=9)
        self._note("running: connect", self._step, "connect")
        self._note("running: pids", self._step, "pids")
        self._note("running: shutdown", self._step, "shutdown")

    def _execs(self) -> None:
        self._note("exec: add", self._exec, "x", "sh", "-c", "exit 7")
        self._note("exec: add again", self._exec, "x", "true")
        self._note("exec: state", self._state, "x")
        self._note("exec: kill before the start", self._step, "kill", exec_id="x", signal=9)
        waiter = gevent.spawn(self._exit, "x")
        gevent.sleep(0)
        self._note("exec: start", self._step, "start", exec_id="x")
        self._note("exec: exit", waiter.get, timeout=TIMEOUT)
        self._note("exec: start again", self._step, "start", exec_id="x")
        self._note("exec: state after the exit", self._state, "x")
        self._note("exec: kill after the exit", self._step, "kill", exec_id="x", signal=9)
        self._note("exec: wait after the exit", self._exit, "x")
        self._note("exec: delete", self._step, "delete", exec_id="x")
        self._note("exec: delete again", self._step, "delete", exec_id="x")
        self._note("exec: state after delete", self._state, "x")
        spec = AnyMessage(value=b"{")
        self._note("exec: bad spec", self._step, "exec", exec_id="y", spec=spec)
        self._note("exec: add what does not exist", self._exec, "n", "no-such-command")
        self._note("exec: start what does not exist", self._step, "start", exec_id="n")
        self._note("exec: state of what did not start", self._state, "n")
        self._note("exec: delete what did not start", self._step, "delete", exec_id="n")
        self._note("exec: add a long one", self._exec, "l", "sleep", "1000")
        self._note("exec: start a long one", self._step, "start", exec_id="l")
        self._note("exec: kill a long one", self._step, "kill", exec_id="l", signal=9)
        self._note("exec: exit of the killed one", self._exit, "l")
        self._note("exec: delete the killed one", self._step, "delete", exec_id="l")

    def _paused(self) -> None:
        self._note("paused: pause", self._step, "pause")
        self._note("paused: state", self._state)
        self._note("paused: pause again", self._step, "pause")
        self._note("paused: start", self._step, "start")
        self._note("paused: exec", self._exec, "p", "true")
        self._note("paused: resume", self._step, "resume")
        self._note("paused: state after resume", self._state)

    def _stopped(self) -> None:
        self._note("stopped: kill", self._step, "kill", signal=signal.SIGKILL)
        self._note("stopped: exit", self._exit)
        self._note("stopped: state", self._state)
        self._note("stopped: kill again", self._step, "kill", signal=signal.SIGKILL)
        self._note("stopped: start", self._step, "start")
        self._note("stopped: pause", self._step, "pause")
        self._note("stopped: exec", self._exec, "s", "true")
        self._note("stopped: delete", self._step, "delete")
        self._note("stopped: delete again", self._step, "delete")
        self._note("stopped: state after delete", self._state)

    def _note(self, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            result = call(*args, **kwargs)
        except StatusError as error:
            self.answers[name] = Code(error.code).name
        else:
            self.answers[name] = result if isinstance(result, str) else "ok"

    def _step(self, name: str, **fields: Any) -> str:
        request = getattr(task_pb2, _REQUESTS[name])(**{"id": self._id, **fields})
        reply = self._call(name, request)
        if name != "delete":
            return "ok"
        self._see_exit(reply)
        return f"exit {reply.exit_status}"

    def _exec(self, exec_id: str, *command: str, id: str = "") -> None:
        process = self._agent.spec(self._id, command)["process"]
        spec = AnyMessage(type_url=PROCESS_TYPE, value=json.dumps(process).encode())
        request = task_pb2.ExecProcessRequest(id=id or self._id, exec_id=exec_id, spec=spec)
        self._call("exec", request)

    def _state(self, exec_id: str = "") -> str:
        reply = self._call("state", task_pb2.StateRequest(id=self._id, exec_id=exec_id))
        return str(Status.Name(reply.status))

    def _exit(self, exec_id: str = "") -> str:
        reply = self._call("wait", task_pb2.WaitRequest(id=self._id, exec_id=exec_id))
        self._see_exit(reply)
        return f"exit {reply.exit_status}"

    def _see_exit(self, reply: Any) -> None:
        if reply.HasField("exited_at") and reply.exit_status:
            self.exits.append(reply.exited_at.ToNanoseconds())


_REQUESTS = {
    "close_io": "CloseIORequest",
    "connect": "ConnectRequest",
    "delete": "DeleteRequest",
    "exec": "ExecProcessRequest",
    "kill": "KillRequest",
    "pause": "PauseRequest",
    "pids": "PidsRequest",
    "resize_pty": "ResizePtyRequest",
    "resume": "ResumeRequest",
    "shutdown": "ShutdownRequest",
    "start": "StartRequest",
    "state": "StateRequest",
    "wait": "WaitRequest",
}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with running_agent(tmp_path, "runc", "--events", "all") as agent:
        yield agent


def test_the_agent_answers_as_the_shim_does_but_for_known_differences(
    agent: Agent, tmp_path: Path
) -> None:
    id = agent.bundle("sleep", "1000")
    begun = time.time_ns()

    def call(name: str, request: Any) -> Any:
        return getattr(agent.tasks, name)(request, timeout=TIMEOUT)

    ours = Script(call, agent.create, id, agent)
    ours.run()
    topics = [topic for topic, _ in events_until_delete(agent)]
    with Shim(tmp_path / "shim") as shim:
        theirs = Script(shim.call, lambda id: shim.create(id, agent.state / id), id, agent)
        theirs.run()
        eventually(lambda: shim.topics[-1], lambda topic: topic == topics[-1])

    assert ours.answers.keys() == theirs.answers.keys()
    differences = {
        step: (answer, theirs.answers[step])
        for step, answer in ours.answers.items()
        if answer != theirs.answers[step]
    }
    assert differences == {step: (mine, its) for step, (mine, its, _) in DIFFERENCES.items()}
    for script in (ours, theirs):
        assert len(script.exits) >= 7
        times = [begun, *script.exits, time.time_ns()]
        assert times == sorted(times)
    # Of the exec that the shim takes before the start.
    shim.topics.remove("/tasks/exec-added")
    assert topics == shim.topics
