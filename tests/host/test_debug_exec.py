"""The debug console's exec mode: what Kuasar's `kuasar-ctl exec` gets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent.socket import SHUT_WR

from tests.support.agent import read_all
from tests.support.debug_agent import DebugAgent, debug_agent

HEADER = b"KSR_MODE exec\n"
TOKEN = b"4711-1700000000000000000"
# As kuasar-ctl's build_exec_payload and shell_escape_arg (tools/kuasar-ctl/src/main.rs).
WRAPPER = b"\"$@\"; rc=$?; printf '%s:%s:%s\\n' '__KSR_EXIT__' '" + TOKEN + b'\' "$rc"; exit "$rc"'


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebugAgent]:
    with debug_agent(tmp_path_factory.mktemp("console")) as agent:
        yield agent


@pytest.fixture
def agent(shared: DebugAgent) -> Iterator[DebugAgent]:
    yield shared
    shared.assert_clean()


def quote(word: bytes) -> bytes:
    return b"'" + word.replace(b"'", b"'\\''") + b"'"


def line(*command: bytes) -> bytes:
    return b" ".join([b"exec sh -c", quote(WRAPPER), b"'sh'", *map(quote, command)]) + b"\n"


def marker(status: int) -> bytes:
    return b"__KSR_EXIT__:%s:%d\r\n" % (TOKEN, status)


def test_the_output_is_that_of_the_command_and_the_marker_and_nothing_else(
    agent: DebugAgent,
) -> None:
    shown = agent.run(HEADER + line(b"sh", b"-c", b"echo it\\'s; echo err >&2"))
    assert shown == b"it's\r\nerr\r\n" + marker(0)


@pytest.mark.parametrize("status", [0, 1, 7, 127, 130])
def test_the_exit_status_follows_the_output(agent: DebugAgent, status: int) -> None:
    assert agent.run(HEADER + line(b"sh", b"-c", b"exit %d" % status)) == marker(status)


def test_output_without_a_last_newline_runs_into_the_marker(agent: DebugAgent) -> None:
    assert agent.run(HEADER + line(b"printf", b"abc")) == b"abc" + marker(0)


def test_an_unknown_command_is_127(agent: DebugAgent) -> None:
    shown = agent.run(HEADER + line(b"/no/such/command"))
    assert b"not found" in shown
    assert shown.endswith(marker(127))


@pytest.mark.parametrize(
    "pieces",
    [
        [b"KSR_", b"MODE ", b"exec\n"],
        [bytes([byte]) for byte in HEADER],
        [b"KSR_MODE exec\r\n"],
        [b"KSR_MODE exec", b"\n"],
    ],
    ids=["words", "bytes", "crlf", "newline"],
)
def test_the_header_may_come_in_pieces(agent: DebugAgent, pieces: list[bytes]) -> None:
    peer = agent.dial()
    for piece in pieces:
        peer.sendall(piece)
        gevent.sleep(0.002)
    peer.sendall(line(b"echo", b"hi"))
    assert read_all(peer) == b"hi\r\n" + marker(0)


def test_the_rest_of_a_header_may_come_late(agent: DebugAgent) -> None:
    peer = agent.dial()
    peer.sendall(HEADER[:1])
    gevent.sleep(0.2)
    peer.sendall(HEADER[1:11])
    gevent.sleep(0.2)
    peer.sendall(HEADER[11:] + line(b"echo", b"hi"))
    assert read_all(peer) == b"hi\r\n" + marker(0)


def test_the_command_may_come_long_after_the_header(agent: DebugAgent) -> None:
    peer = agent.dial()
    peer.sendall(HEADER)
    gevent.sleep(0.3)
    peer.sendall(line(b"echo", b"hi"))
    assert read_all(peer) == b"hi\r\n" + marker(0)


def test_ten_mebibytes_of_output_arrive_whole(agent: DebugAgent) -> None:
    script = b"yes 0123456789abcde | head -c 10485760"
    shown = agent.run(HEADER + line(b"sh", b"-c", script))
    assert shown == b"0123456789abcde\r\n" * (10485760 // 16) + marker(0)


def test_a_command_line_of_a_hundred_kibibytes_arrives_whole(agent: DebugAgent) -> None:
    # A terminal in canonical mode cuts lines at 4095 bytes.
    words = b"0123456789" * 10240
    assert agent.run(HEADER + line(b"sh", b"-c", b'printf %s "$1" | wc -c', b"sh", words)) == (
        b"102400\r\n" + marker(0)
    )


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/dash", "/bin/busybox-sh"])
def test_every_byte_of_an_argument_reaches_the_program(tmp_path: Path, shell: str) -> None:
    # TAB, Ctrl-D, ESC, DEL, CR, Ctrl-C, Ctrl-U and newline have meanings for line editors and
    # terminals; `!` has one for interactive shells.
    if shell == "/bin/busybox-sh":
        shell = str(tmp_path / "ash")
        Path(shell).symlink_to("/bin/busybox")
    word = bytes(range(1, 256)) + b" \n!!\t\x04\x1b[A\x7f\r\x03\x15\n!x"
    with debug_agent(tmp_path, "--debug-shell", shell) as agent:
        command = line(b"sh", b"-c", b'printf %s "$1" | od -An -v -tx1', b"sh", word)
        *shown, end = agent.run(HEADER + command).rsplit(b"\r\n", 2)
    assert bytes.fromhex(shown[0].decode()) == word
    assert end == b""


def test_the_end_of_the_clients_input_is_that_of_the_command(agent: DebugAgent) -> None:
    peer = agent.dial()
    peer.sendall(HEADER + line(b"sh", b"-c", b"wc -c") + b"\x04\x03abc")
    peer.shutdown(SHUT_WR)
    assert read_all(peer) == b"5\r\n" + marker(0)


def test_the_end_of_input_reaches_a_command_that_waits_for_it(agent: DebugAgent) -> None:
    peer = agent.dial()
    peer.sendall(HEADER + line(b"sh", b"-c", b"echo begun; cat; echo over"))
    shown = b""
    while not shown.endswith(b"begun\r\n"):
        shown += peer.recv(100)
    peer.sendall(b"abc\x04")
    while not shown.endswith(b"abc\x04"):
        shown += peer.recv(100)
    peer.shutdown(SHUT_WR)
    assert read_all(peer) == b"over\r\n" + marker(0)


def test_the_end_of_input_without_a_command_ends_the_shell(agent: DebugAgent) -> None:
    peer = agent.dial()
    peer.sendall(HEADER + b"echo hi\n")
    peer.shutdown(SHUT_WR)
    assert read_all(peer) == b"hi\r\n"


def test_what_follows_the_command_is_its_input(agent: DebugAgent) -> None:
    shown = agent.run(HEADER + line(b"head", b"-n", b"2") + b"one\ntwo\n")
    assert shown == b"one\r\ntwo\r\n" + marker(0)


def test_background_work_does_not_delay_the_end(agent: DebugAgent) -> None:
    script = b"(trap '' HUP; while :; do sleep 0.01; echo late; done) & echo now"
    shown = agent.run(HEADER + line(b"sh", b"-c", script))
    assert shown.startswith(b"now\r\n")
    assert marker(0) in shown


def test_it_has_a_controlling_terminal(agent: DebugAgent) -> None:
    shown = agent.run(HEADER + line(b"sh", b"-c", b"echo direct >/dev/tty; stty size"))
    assert shown == b"direct\r\n24 80\r\n" + marker(0)


def test_a_disconnect_ends_the_command(agent: DebugAgent) -> None:
    peer = agent.dial()
    peer.sendall(HEADER + line(b"sh", b"-c", b"trap '' HUP; echo up; sleep 1000"))
    assert peer.recv(4) == b"up\r\n"
    peer.close()


def test_many_at_once_each_get_their_own_output(agent: DebugAgent) -> None:
    peers = [agent.dial() for _ in range(20)]
    for number, peer in enumerate(peers):
        peer.sendall(HEADER + line(b"sh", b"-c", b"echo %d; exit %d" % (number, number)))
    for number, peer in enumerate(peers):
        assert read_all(peer) == b"%d\r\n" % number + marker(number)
