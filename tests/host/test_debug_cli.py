"""kuasar-debug exec and shell against an agent on this host."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.debug_agent import DebugAgent, debug_agent
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebugAgent]:
    with debug_agent(tmp_path_factory.mktemp("console")) as agent:
        yield agent


@pytest.fixture
def agent(shared: DebugAgent) -> Iterator[DebugAgent]:
    yield shared
    shared.assert_clean()


def command(agent: DebugAgent, name: str, *args: str) -> list[str]:
    where = f"unix://{agent.ports}/1024"
    return [sys.executable, "-m", "kuasar_debug", name, "--address", where, *args]


def run(agent: DebugAgent, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(agent, *args), input=stdin, capture_output=True, timeout=TIMEOUT, check=False
    )


@pytest.mark.parametrize("status", [0, 1, 7, 127, 130])
def test_exec_exits_with_the_status_of_the_command(agent: DebugAgent, status: int) -> None:
    done = run(agent, "exec", "--", "sh", "-c", f"echo out; exit {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, b"out\n", b"")


def test_exec_passes_ten_mebibytes_on_unchanged(agent: DebugAgent) -> None:
    done = run(agent, "exec", "--", "sh", "-c", "yes 0123456789abcde | head -c 10485760")
    assert done.stdout == b"0123456789abcde\n" * (10485760 // 16)
    assert done.returncode == 0


def test_exec_takes_a_command_line_of_a_hundred_kibibytes(agent: DebugAgent) -> None:
    word = "it's a 'long' \\ wörd\n" * 4875
    done = run(agent, "exec", "--", "printf", "%s", word)
    assert done.stdout == word.encode()


def test_exec_gives_the_command_no_input(agent: DebugAgent) -> None:
    assert run(agent, "exec", "--", "cat", stdin=b"ignored").stdout == b""


def test_exec_reports_a_timeout_as_124(agent: DebugAgent) -> None:
    done = run(agent, "exec", "--timeout", "0.5", "--", "sh", "-c", "echo up; exec sleep 1000")
    assert (done.returncode, done.stdout) == (124, b"up\n")
    assert done.stderr == b"killed after 0.5 s\n"


def test_ctrl_c_ends_exec_with_130_and_kills_the_command(agent: DebugAgent) -> None:
    process = subprocess.Popen(
        command(agent, "exec", "--", "sh", "-c", "echo up; exec sleep 1000"),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT) == 130
    assert eventually(agent.children, lambda left: not left) == []


def test_exec_ends_quietly_when_its_output_is_no_longer_read(agent: DebugAgent) -> None:
    with subprocess.Popen(
        command(agent, "exec", "--", "yes"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(TIMEOUT) == 1


def test_exec_says_when_the_shell_is_killed(agent: DebugAgent) -> None:
    done = run(agent, "exec", "--", "sh", "-c", "kill -9 $PPID")
    assert done.returncode == 1
    assert done.stderr == b"Error: the guest ended the connection without an exit status\n"


def test_a_shell_takes_its_input_from_a_pipe(agent: DebugAgent) -> None:
    done = run(agent, "shell", stdin=b"echo $((6 * 7)); exit 7\n")
    assert b"42\r\n" in done.stdout
    assert done.returncode == 7
