"""The debug console as a terminal: what a person with socat gets."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import gevent
import pytest
from gevent.socket import SHUT_WR, socket

from kuasar_agent.debug_server.server import DebugServer
from kuasar_agent.reaper import Child, Reaper
from kuasar_agent.ttrpc import dial, listen
from tests.support.agent import read_all, running_agent
from tests.support.debug_agent import DebugAgent, debug_agent
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

MIB = 1 << 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebugAgent]:
    with debug_agent(tmp_path_factory.mktemp("console")) as agent:
        yield agent


@pytest.fixture
def agent(shared: DebugAgent) -> Iterator[DebugAgent]:
    """Nothing of a test's shells may be left for the next one."""
    yield shared
    shared.assert_clean()


def read_until(peer: socket, end: bytes) -> bytes:
    """What the peer sends up to `end`, and what came with it."""
    data = b""
    while end not in data:
        chunk = peer.recv(65536)
        assert chunk, data
        data += chunk
    return data


def ready(peer: socket, *setup: bytes) -> None:
    """Wait until the shell has executed `setup`."""
    # What is typed is echoed; only the shell's own output has the sum.
    peer.sendall(b"; ".join([*setup, b"echo ready-$((6 * 7))\n"]))
    read_until(peer, b"ready-42\r\n")


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def pids(shown: bytes) -> list[int]:
    return [int(word) for word in shown.split() if word.isdigit()]


def test_without_debug_the_port_is_closed(tmp_path: Path) -> None:
    with running_agent(tmp_path, "crun") as plain:
        assert not (plain.ports / "1025").exists()


def test_the_shell_leads_a_session_with_a_controlling_terminal(agent: DebugAgent) -> None:
    shown = agent.run(b"ps -o pid=,sid=,tpgid= -p $$ >/dev/tty; exit\n")
    line = next(line for line in shown.splitlines() if len(pids(line)) == 3)
    pid, session, _ = pids(line)
    assert pid == session
    assert b"job control" not in shown


def test_terminal_size_and_type_are_sane_from_the_start(agent: DebugAgent) -> None:
    shown = agent.run(b"stty size; echo T=$TERM; exit\n")
    assert b"24 80\r\n" in shown
    assert b"T=xterm\r\n" in shown


def test_what_is_typed_is_echoed_and_job_control_works(agent: DebugAgent) -> None:
    peer = agent.dial()
    ready(peer)
    peer.sendall(b"sleep 1000\n")
    read_until(peer, b"sleep 1000\r\n")
    pid = eventually(lambda: grandchildren(agent, "sleep"), bool)[0]
    peer.sendall(b"\x1a")
    read_until(peer, b"Stopped")
    peer.sendall(b"fg\n")
    read_until(peer, b"sleep 1000\r\n")
    # Bash names the job before it gives the terminal to it.
    assert eventually(lambda: in_foreground(pid), bool)
    peer.sendall(b"\x03")
    assert not eventually(lambda: alive(pid), lambda lives: not lives)
    ready(peer)
    peer.close()


def in_foreground(pid: int) -> bool:
    """Whether a process runs and gets the signals of its terminal's keys (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    state, group, foreground = fields[0], fields[2], fields[5]
    return state != "T" and group == foreground


def grandchildren(agent: DebugAgent, name: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            head, _, tail = path.read_text().rpartition(")")
            parent = tail.split()[1]
            if head.endswith(f"({name}") and str(agent.pid) in parent_of(parent):
                found.append(int(head.split()[0]))
    return found


def parent_of(pid: str) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return ""


def test_no_header_within_the_time_is_a_terminal(agent: DebugAgent) -> None:
    peer = agent.dial()
    # The prompt comes by itself.
    assert peer.recv(4096)
    peer.sendall(b"exit\n")
    read_all(peer)


@pytest.mark.parametrize("header", [b"ksr_mode exec", b"KSR_MODE EXEC", b"KSR_MODE exec "])
def test_any_other_first_line_is_typed_into_the_shell(agent: DebugAgent, header: bytes) -> None:
    shown = agent.run(header + b"\nexit\n")
    word = header.split()[0]
    assert header.strip() in shown
    assert word + b": command not found" in shown


def test_a_long_first_line_is_typed_whole(agent: DebugAgent) -> None:
    text = b"x" * 3000
    shown = agent.run(b"stty -echo; echo " + text + b" | wc -c; exit\n")
    assert b"3001\r\n" in shown


def test_the_end_of_input_ends_the_shell(agent: DebugAgent) -> None:
    peer = agent.dial()
    peer.sendall(b"echo $((6 * 7))\n")
    peer.shutdown(SHUT_WR)
    shown = read_all(peer)
    assert b"42\r\n" in shown


def test_the_end_of_input_reaches_the_program_that_reads(agent: DebugAgent) -> None:
    peer = agent.dial()
    peer.sendall(b"wc -c; echo status $?; exit\nabc\n")
    peer.shutdown(SHUT_WR)
    assert b"status 0\r\n" in read_all(peer)


def test_a_disconnect_ends_the_whole_session(agent: DebugAgent) -> None:
    peer = agent.dial()
    script = b"(trap '' HUP TERM; sleep 1000 & echo P $! P; sleep 1000) & nohup sleep 1000 & "
    peer.sendall(script + b"echo P $! P $$ P; trap '' HUP; echo don''e\n")
    shown = read_until(peer, b"done\r\n")
    shown += read_until(peer, b"P") if shown.count(b" P\r\n") < 2 else b""
    found = {pid for pid in pids(shown) if pid > 1 and alive(pid) and pid != 1000}
    assert len(found) >= 3, shown
    peer.close()
    assert eventually(lambda: {pid for pid in found if alive(pid)}, lambda left: not left) == set()


def test_the_end_of_the_shell_ends_what_it_left_running(agent: DebugAgent) -> None:
    shown = agent.run(b"(trap '' HUP; sleep 1000) & echo P $! P; exit\n")
    found = [pid for pid in pids(shown) if pid > 1000]
    assert eventually(lambda: any(map(alive, found)), lambda lives: not lives) is False


def test_a_daemon_that_holds_the_terminal_does_not_keep_the_connection(agent: DebugAgent) -> None:
    peer = agent.dial()
    peer.sendall(b"setsid sh -c 'echo D $$ D; exec sleep 1000' &\n")
    words = read_until(peer, b" D\r\n").split()
    peer.sendall(b"exit\n")
    read_all(peer)
    pid = next(
        int(words[i + 1]) for i, word in enumerate(words) if word == b"D" and words[i + 1].isdigit()
    )
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_twenty_shells_at_once_do_not_disturb_each_other(agent: DebugAgent) -> None:
    peers = [agent.dial() for _ in range(20)]
    for number, peer in enumerate(peers):
        peer.sendall(b"n=%d\n" % number)
    for peer in peers:
        peer.sendall(b"echo shell-$n-$((n * n)); exit\n")
    for number, peer in enumerate(peers):
        assert b"shell-%d-%d\r\n" % (number, number * number) in read_all(peer)


def test_five_hundred_connections_leave_nothing(agent: DebugAgent) -> None:
    for number in range(500):
        peer = agent.dial()
        # At once, before the shell is ready, and once it runs.
        if number % 3:
            peer.sendall(b"sleep 1000 &\n")
        if number % 3 == 2:
            peer.recv(1)
        peer.close()
    # Without processes and masters there are no terminals either.
    agent.assert_clean()


def test_a_binary_paste_arrives_unchanged(agent: DebugAgent) -> None:
    data = os.urandom(MIB)
    peer = agent.dial()
    ready(peer, b"stty raw -echo opost", b"PS1=")
    peer.sendall(b"echo go-$((6 * 7)); head -c %d | sha256sum; exit\n" % MIB)
    read_until(peer, b"go-42\r\n")
    peer.sendall(data)
    assert hashlib.sha256(data).hexdigest().encode() in read_all(peer)


def test_output_is_complete_for_a_client_that_reads_late(agent: DebugAgent) -> None:
    peer = agent.dial()
    peer.sendall(b"stty -echo; yes 0123456789 | head -n 20000; echo en''d; exit\n")
    # The shell cannot end before somebody reads; let everything fill up first.
    assert eventually(lambda: len(agent.children()), lambda n: n > 0)
    gevent.sleep(0.5)
    shown = read_all(peer)
    assert shown.count(b"0123456789\r\n") == 20000
    assert b"end\r\n" in shown


def test_clients_that_never_read_or_write_hurt_nobody(agent: DebugAgent) -> None:
    silent = [agent.dial() for _ in range(10)]
    deaf = [agent.dial() for _ in range(10)]
    for peer in deaf:
        peer.sendall(b"yes\n")
    assert b"42\r\n" in agent.run(b"echo $((6 * 7)); exit\n")
    for peer in (*silent, *deaf):
        peer.close()


def test_a_client_is_missed_even_while_nobody_reads_what_it_typed(agent: DebugAgent) -> None:
    peer = agent.dial()
    ready(peer, b"stty raw -echo opost")
    peer.sendall(b"echo go-$((6 * 7)); sleep 1000\n")
    read_until(peer, b"go-42\r\n")
    peer.settimeout(1)
    with suppress(TimeoutError):
        peer.sendall(b"x" * (4 * MIB))
    peer.close()


def test_a_session_has_the_size_of_its_client_and_tells_how_it_ended(agent: DebugAgent) -> None:
    control, peer = agent.dial(), agent.dial()
    control.sendall(b"KSR_MODE session 50 132 xterm-256color\n")
    token = read_until(control, b"\n").split()[1]
    peer.sendall(b"KSR_MODE attach " + token + b"\n")
    ready(peer, b"stty size", b"echo $TERM")
    peer.sendall(b"clear; stty size\n")
    read_until(peer, b"50 132\r\n")
    loop = b"while :; do sleep 0.1; done"
    peer.sendall(b"(trap 'stty size; exit' WINCH; echo wai''ting; " + loop + b")\n")
    read_until(peer, b"waiting\r\n")
    control.sendall(b"size bad\nsize 11 22\n")
    read_until(peer, b"11 22\r\n")
    peer.sendall(b"exit 7\n")
    read_all(peer)
    assert read_all(control) == b"exit 7\n"


def test_a_token_is_good_for_one_shell_and_only_while_its_owner_is_there(
    agent: DebugAgent,
) -> None:
    control = agent.dial()
    control.sendall(b"KSR_MODE session 50 132 xterm\n")
    token = read_until(control, b"\n").split()[1]
    control.shutdown(SHUT_WR)
    # The agent has noticed when it closes its side.
    assert read_all(control) == b""
    shown = agent.run(b"KSR_MODE attach " + token + b"\nstty size; exit\n")
    assert b"24 80\r\n" in shown


def test_a_shell_that_does_not_exist_is_one_clear_line(tmp_path: Path) -> None:
    with debug_agent(tmp_path, "--debug-shell", "/no/such/shell") as agent:
        shown = agent.run(b"")
        assert shown.count(b"\n") == 1
        assert b"/no/such/shell" in shown


def test_a_peer_that_is_not_admitted_gets_nothing(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/1025"
    console = DebugServer(Reaper(), "/bin/sh", lambda peer: False)
    console.start(listen(address))
    for _ in range(3):
        peer = dial(address, TIMEOUT)
        peer.settimeout(TIMEOUT)
        assert peer.recv(1) == b""


def test_a_guest_without_memory_for_a_shell_says_so(tmp_path: Path) -> None:
    class Exhausted(Reaper):
        def spawn(self, *_: object, **__: object) -> Child:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    address = f"unix://{tmp_path}/1025"
    DebugServer(Exhausted(), "/bin/sh", lambda peer: True).start(listen(address))
    peer = dial(address, TIMEOUT)
    peer.settimeout(TIMEOUT)
    assert read_all(peer) == b"kuasar-agent: no process: Cannot allocate memory\r\n"


def test_accept_errors_do_not_end_the_console(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/1025"
    listener = listen(address)
    errors = [OSError(24, "Too many open files"), ConnectionAbortedError(103, "aborted")]

    class Failing:
        def accept(self) -> tuple[socket, object]:
            if errors:
                raise errors.pop()
            return listener.accept()

    DebugServer(Reaper(), "/bin/sh", lambda peer: False).start(Failing())  # type: ignore[arg-type]
    peer = dial(address, TIMEOUT)
    peer.settimeout(TIMEOUT)
    assert peer.recv(1) == b""
