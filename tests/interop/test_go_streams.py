"""Standard streams read and written by containerd's own code, with ttrpc before and after 1.2.9.

Bytes are counted and hashed on both ends.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from kuasar_agent.boot.config import TaskConfig
from tests.support.agent import Agent
from tests.support.go_streams import VERSIONS, Answer, GoStreams, build, go_streams, result
from tests.support.streams import url

PATIENCE = 120.0


@pytest.fixture(autouse=True)
def hangs_end() -> Iterator[None]:
    with gevent.Timeout(PATIENCE):
        yield


@pytest.fixture(scope="module", params=VERSIONS)
def ttrpc(request: pytest.FixtureRequest) -> str:
    """A version of ttrpc with which the program is built; that may take minutes."""
    version = str(request.param)
    build(version)
    return version


@pytest.fixture
def host(ttrpc: str, agent: Agent, tmp_path: Path) -> Iterator[GoStreams]:
    with go_streams(ttrpc, agent.ports / "1024", tmp_path / "go.log") as program:
        yield program
        assert "inactive stream" not in program.log


def put(agent: Agent, data: bytes) -> bytes:
    """Write the file `/out` of the containers' root."""
    (agent.rootfs / "out").write_bytes(data)
    return data


def assert_complete(answer: Answer, data: bytes) -> None:
    assert (answer.size, answer.error) == (len(data), "")
    assert answer.sha256 == hashlib.sha256(data).hexdigest()


LINES = b"".join(b"%09d\n" % number for number in range(200_000))
LONG_LINE = b"x" * (20 << 20) + b"\n"


@pytest.mark.parametrize("receive", [False, True], ids=["ReadByteStream", "ReceiveStream"])
@pytest.mark.parametrize("data", [LINES, LONG_LINE], ids=["lines", "long line"])
def test_output_arrives_byte_for_byte(
    agent: Agent, host: GoStreams, data: bytes, receive: bool
) -> None:
    put(agent, data)
    id = agent.run("cat", "/out", stdout=url("s-stdout"))
    assert_complete(host.do(stream="s-stdout", receive=receive), data)
    agent.wait(id)
    agent.delete(id)


@pytest.mark.parametrize("pause", [3, 9])
@pytest.mark.parametrize("command", ["echo", "cat"], ids=["lines", "blocks"])
def test_a_reader_that_pauses_gets_everything(
    agent: Agent, host: GoStreams, pause: int, command: str
) -> None:
    if command == "echo":
        # For longer than the pause.
        count = pause * 200
        script = f"i=0; while [ $i -lt {count} ]; do echo $i; usleep 5000; i=$((i+1)); done"
        data = b"".join(b"%d\n" % number for number in range(count))
    else:
        script, data = "cat /out", put(agent, os.urandom(2 << 20))
    reading = host.begin(stream="s-stdout", pause_at=0, pause=pause)
    id = agent.run("sh", "-c", script, stdout=url("s-stdout"))
    assert_complete(result(reading), data)
    agent.wait(id)
    agent.delete(id)


def test_a_slow_reader_gets_everything(agent: Agent, host: GoStreams) -> None:
    data = put(agent, os.urandom(1 << 20))
    reading = host.begin(stream="s-stdout", every=0.1)
    id = agent.run("cat", "/out", stdout=url("s-stdout"))
    assert_complete(result(reading), data)
    agent.wait(id)
    agent.delete(id)


SIZES = (0, 1, 50, 70_000, 600_000, 3 << 20)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("place", ["stream", "socket", "fifo"])
def test_a_reader_that_is_cancelled_when_wait_returns_has_everything(
    agent: Agent, host: GoStreams, place: str, size: int
) -> None:
    data = put(agent, os.urandom(size))
    output, order = where(agent, place)
    id = agent.bundle("cat", "/out")
    agent.create(id, stdout=output)
    answer = host.do(task=id, **order)
    assert (answer.size, answer.exit) == (size, 0)
    assert answer.sha256 == hashlib.sha256(data).hexdigest()


def where(agent: Agent, place: str) -> tuple[str, dict[str, str]]:
    """Return the URL of an output, and how the host reads it."""
    if place == "stream":
        return url("s-stdout"), {"stream": "s-stdout"}
    if place == "socket":
        port = agent.port()
        return f"vsock://3:{port}", {"socket": str(agent.ports / str(port))}
    path = str(agent.ports.parent / "fifo")
    os.mkfifo(path)
    return path, {"fifo": path}


@pytest.mark.parametrize("pause", [3, 9])
def test_a_pause_while_the_process_ends_loses_nothing_either(
    agent: Agent, host: GoStreams, pause: int
) -> None:
    data = put(agent, os.urandom(300_000))
    id = agent.bundle("cat", "/out")
    agent.create(id, stdout=url("s-stdout"))
    answer = host.do(task=id, stream="s-stdout", pause_at=100_000, pause=pause)
    assert answer.size == len(data)
    assert answer.sha256 == hashlib.sha256(data).hexdigest()
    assert answer.ended < pause


def test_a_slow_reader_is_waited_for(agent: Agent, host: GoStreams) -> None:
    data = put(agent, os.urandom(1 << 20))
    id = agent.bundle("cat", "/out")
    agent.create(id, stdout=url("s-stdout"))
    answer = host.do(task=id, stream="s-stdout", every=0.2)
    assert answer.size == len(data)
    assert answer.waited > TaskConfig().drain_grace


@pytest.mark.parametrize("place", ["stream", "socket", "fifo"])
def test_an_exec_s_output_is_taken_before_its_end_is_told(
    agent: Agent, host: GoStreams, place: str
) -> None:
    data = put(agent, os.urandom(400_000))
    id = agent.run("sleep", "1000")
    output, order = where(agent, place)
    # A child of the exec that outlives it holds the pipe open.
    agent.add_exec(id, "e", "sh", "-c", "sleep 1000 & cat /out", stdout=output)
    answer = host.do(task=id, exec="e", **order)
    assert answer.size == len(data)
    assert answer.sha256 == hashlib.sha256(data).hexdigest()
    agent.kill(id, 9)
    agent.wait(id)
    agent.delete(id)


@pytest.mark.parametrize("keep", [False, True], ids=["connection closed", "stream closed"])
def test_readers_that_leave_at_every_point_and_come_back(
    agent: Agent, host: GoStreams, keep: bool
) -> None:
    data = put(agent, os.urandom(3 << 20))
    id = agent.run("cat", "/out", stdout=url("s-stdout"))
    total = 0
    for point in (0, 1, 40_000, 70_000, 100_000, 140_000, 300_000):
        answer = host.do(stream="s-stdout", cancel_at=point, keep_connection=keep)
        total += answer.size
    total += host.do(stream="s-stdout").size
    # Each took with it no more than it had granted: 128 KiB.
    assert len(data) - 7 * 128 * 1024 <= total <= len(data)
    agent.wait(id)
    agent.delete(id)


@pytest.mark.parametrize("send", [False, True], ids=["WriteByteStream", "SendStream"])
def test_input_arrives_byte_for_byte(agent: Agent, host: GoStreams, send: bool) -> None:
    id = agent.run("sha256sum", stdin=url("s-stdin"), stdout=url("s-stdout"))
    sent = host.do(input="s-stdin", length=5_000_001, receive=send)
    assert sent.error == ""
    answer = host.begin(stream="s-stdout")
    assert agent.wait(id).exit_status == 0
    wanted = f"{sent.sha256}  -\n".encode()
    assert_complete(result(answer), wanted)
    agent.delete(id)
