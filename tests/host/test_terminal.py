"""Containers with a terminal, with both OCI runtimes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent.socket import socket

from kuasar_agent.ttrpc import StatusError
from tests.support.agent import Agent, read_all


@pytest.fixture
def agent(module_agent: Agent) -> Agent:
    return module_agent


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def hangs_end() -> Iterator[None]:
    with gevent.Timeout(120):
        yield


class Terminal:
    """A container with a terminal, and both of its streams."""

    def __init__(self, agent: Agent, *command: str) -> None:
        self.agent = agent
        ports = agent.port(), agent.port()
        self.id = agent.bundle(*command)
        agent.create(
            self.id,
            terminal=True,
            stdin=f"vsock://3:{ports[0]}",
            stdout=f"vsock://3:{ports[1]}",
        )
        self.keys, self.screen = (agent.dial(port) for port in ports)

    def start(self) -> Terminal:
        self.agent.start(self.id)
        return self

    def end(self) -> None:
        self.agent.wait(self.id)
        self.agent.delete(self.id)
        self.keys.close()
        self.screen.close()


def read_until(peer: socket, text: bytes) -> bytes:
    got = b""
    while text not in got:
        data = peer.recv(4096)
        assert data, got
        got += data
    return got


def test_the_process_has_a_terminal_on_all_three_streams(agent: Agent) -> None:
    terminal = Terminal(agent, "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && tty").start()
    assert read_all(terminal.screen) == b"/dev/pts/0\r\n"
    assert agent.wait(terminal.id).exit_status == 0
    terminal.end()


def test_what_is_typed_reaches_the_process(agent: Agent) -> None:
    terminal = Terminal(agent, "sh", "-c", "read line; echo got $line; exit 3").start()
    terminal.keys.sendall(b"hello\n")
    assert b"got hello\r\n" in read_all(terminal.screen)
    assert agent.wait(terminal.id).exit_status == 3
    terminal.end()


def test_an_interrupt_is_typed(agent: Agent) -> None:
    terminal = Terminal(
        agent, "sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 1; done"
    )
    terminal.start()
    read_until(terminal.screen, b"ready")
    terminal.keys.sendall(b"\x03")
    assert agent.wait(terminal.id).exit_status == 9
    terminal.end()


def test_a_raw_terminal_carries_every_byte(agent: Agent) -> None:
    data = bytes(range(256)) * 200
    script = f"stty raw -echo; printf ready; head -c {len(data)}"
    terminal = Terminal(agent, "sh", "-c", script).start()
    assert read_until(terminal.screen, b"ready") == b"ready"
    sender = gevent.spawn(terminal.keys.sendall, data)
    assert read_all(terminal.screen) == data
    sender.get()
    terminal.end()


def test_a_long_output_ends_with_its_last_byte(agent: Agent) -> None:
    (agent.rootfs / "text").write_bytes(b"0123456789abcdef\n" * 100_000)
    terminal = Terminal(agent, "cat", "/text").start()
    assert read_all(terminal.screen) == b"0123456789abcdef\r\n" * 100_000
    terminal.end()


def test_the_size_is_set_before_and_after_the_start(agent: Agent) -> None:
    script = "stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    terminal = Terminal(agent, "sh", "-c", script)
    agent.resize(terminal.id, 120, 40)
    terminal.start()
    assert read_until(terminal.screen, b"ready").startswith(b"40 120\r\n")
    agent.resize(terminal.id, 132, 50)
    assert b"50 132\r\n" in read_all(terminal.screen)
    terminal.end()
    # Where there is nothing to resize, containerd still asks.
    id = agent.run("true")
    agent.resize(id, 80, 24)
    agent.wait(id)
    agent.delete(id)


@pytest.mark.parametrize("typed", [b"two\nlines\n", b"no newline", b""])
def test_close_io_types_the_end_of_file(agent: Agent, typed: bytes) -> None:
    terminal = Terminal(agent, "sh", "-c", "stty -echo; echo ready; cat; echo end").start()
    read_until(terminal.screen, b"ready\r\n")
    terminal.keys.sendall(typed)
    agent.close_io(terminal.id)
    assert read_all(terminal.screen) == typed.replace(b"\n", b"\r\n") + b"end\r\n"
    terminal.end()


def test_the_spec_alone_may_ask_for_a_terminal(agent: Agent) -> None:
    id, port = agent.bundle("tty"), agent.port()
    path = agent.state / id / "config.json"
    spec = json.loads(path.read_text())
    spec["process"]["terminal"] = True
    path.write_text(json.dumps(spec))
    agent.create(id, stdout=f"vsock://3:{port}")
    agent.start(id)
    assert read_all(agent.dial(port)) == b"/dev/pts/0\r\n"
    agent.wait(id)
    agent.delete(id)


def test_the_io_file_alone_may_ask_for_a_terminal(agent: Agent) -> None:
    id, port = agent.bundle("tty"), agent.port()
    urls = {"stdin": "", "stdout": f"vsock://3:{port}", "stderr": "", "terminal": True}
    (agent.state / id / f"io-{id}").write_text(json.dumps(urls))
    agent.create(id)
    agent.start(id)
    assert read_all(agent.dial(port)) == b"/dev/pts/0\r\n"
    agent.wait(id)
    agent.delete(id)


def test_a_terminal_connected_to_nothing_does_not_fill_up(agent: Agent) -> None:
    id = agent.bundle("sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
    agent.create(id, terminal=True)
    agent.start(id)
    assert agent.wait(id).exit_status == 0
    agent.delete(id)


def test_nothing_is_left_of_a_terminal_whose_container_is_not_created(agent: Agent) -> None:
    before = set(Path("/run").glob("pty*"))
    id = agent.bundle("sh")
    (agent.state / id / "config.json").write_text('{"ociVersion": "1.0.2"}')
    with pytest.raises(StatusError):
        agent.create(id, terminal=True)
    assert set(Path("/run").glob("pty*")) == before
