"""The order in which containerd's CRI calls, from a file of scripts.

A step `call`s a method of the Task service and compares the status (OK unless `codes` lists
others) and fields of the answer; `begin` does so on a connection of its own while the script goes
on, until `end`, or `hang up`, names it. `output` reads the stream, `until` waits for a status.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from kuasar_agent.api import task_pb2
from kuasar_agent.containers.process import Status
from kuasar_agent.services import task
from kuasar_agent.ttrpc import Client, Code, StatusError
from tests.support.agent import Agent
from tests.support.streams import grant, next_data, open_stream, url
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

SCRIPTS = json.loads((Path(__file__).parents[1] / "fixtures/cri-calls.json").read_text())
STREAM = "cri-stdout"
FIELDS = ("exec_id", "signal", "all")

Step = dict[str, Any]


@pytest.fixture(autouse=True)
def hangs_end() -> Iterator[None]:
    with gevent.Timeout(TIMEOUT):
        yield


@pytest.fixture
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Script:
    """A script that is being played to an agent."""

    def __init__(self, agent: Agent, command: list[str]) -> None:
        self._agent = agent
        self._id = agent.bundle(*command)
        self._pid = 0
        self._begun: dict[str, tuple[Client, gevent.Greenlet[..., None]]] = {}

    def play(self, step: Step) -> None:
        if "begin" in step:
            client = self._agent.connect()
            greenlet = gevent.spawn(self._ask, client, step["begin"], step)
            self._begun[step["as"]] = client, greenlet
            # Let it be sent before the next step.
            gevent.idle()
        elif "end" in step:
            client, greenlet = self._begun.pop(step["end"])
            assert_answer(greenlet.get(), step)
            client.close()
        elif "hang up" in step:
            client, greenlet = self._begun.pop(step["hang up"])
            greenlet.kill()
            client.close()
        elif "until" in step:
            wanted = int(Status[step["until"]])
            status = eventually(lambda: int(self._agent.state_of(self._id).status), wanted.__eq__)
            assert status == wanted
        elif "output" in step:
            stream = open_stream(self._agent.client, STREAM)
            grant(stream, len(step["output"]))
            assert next_data(stream) == step["output"].encode()
            stream.close_send()
        else:
            assert_answer(self._ask(self._agent.client, step["call"], step), step)
            if step.get("has") == "init":
                assert self._pid in self._agent.pids(self._id)

    def _ask(self, client: Client, method: str, step: Step) -> Any:
        """Return the answer to a call, or its error."""
        try:
            if method == "create":
                self._pid = self._agent.create(self._id, stdout=url(STREAM))
                return None
            if method == "exec":
                return self._agent.add_exec(self._id, step["exec_id"], *step["command"])
            kind = task.SERVICE.methods_by_name[method.capitalize()].input_type.name
            fields = {name: step[name] for name in FIELDS if name in step}
            request = getattr(task_pb2, kind)(id=self._id, **fields)
            return getattr(client.stub(task.SERVICE), method)(request, timeout=TIMEOUT)
        except StatusError as error:
            return error


def assert_answer(answer: Any, step: Step) -> None:
    code = answer.code if isinstance(answer, StatusError) else Code.OK
    assert Code(code).name in step.get("codes", ["OK"]), answer
    for name, value in step.get("answer", {}).items():
        wanted = Status[value] if name == "status" else value
        assert getattr(answer, name) == wanted, (step, answer)


@pytest.mark.parametrize("runtime", ["crun", "runc"], indirect=True)
@pytest.mark.parametrize("script", SCRIPTS, ids=[script["name"] for script in SCRIPTS])
def test_calls_in_the_order_of_the_cri(agent: Agent, script: dict[str, Any]) -> None:
    playing = Script(agent, script["command"])
    for step in script["steps"]:
        playing.play(step)
