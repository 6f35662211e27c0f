"""kuasar-debug's look inside a booted guest: shell, exec, logs, and plain socat."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kuasar_host.address import GuestAddress
from kuasar_host.errors import HostError
from tests.support.guest import Guest
from tests.support.kuasar_debug import BOOT, kuasar_debug
from tests.support.timeouts import GUEST
from tests.support.tmux import debug_shell
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a microVM with the debug console runs."""
    directory = tmp_path_factory.mktemp("shell")
    booted = kuasar_debug(
        "boot", "--dir", str(directory), "--detach", "--append", "task.debug", *BOOT
    )
    assert booted.returncode == 0, booted.stderr
    yield directory
    print((directory / "console.log").read_text(errors="replace")[-2000:])
    kuasar_debug("stop", "--dir", str(directory))


def execute(directory: Path, *command: str) -> subprocess.CompletedProcess[bytes]:
    return kuasar_debug("exec", "--dir", str(directory), "--", *command)


def test_exec_gives_the_output_and_the_exit_status(directory: Path) -> None:
    done = execute(directory, "sh", "-c", "cat /proc/1/comm; readlink /proc/1/exe; exit 7")
    assert done.returncode == 7, done.stderr
    assert b"python" in done.stdout
    assert execute(directory, "/no/such/command").returncode == 127


def test_exec_leaves_binary_output_as_it_is(directory: Path) -> None:
    script = "head -c 1048576 /dev/urandom >/run/random; sha256sum </run/random >&2"
    summed = execute(directory, "sh", "-c", script).stdout.split()[0].decode()
    done = execute(directory, "cat", "/run/random")
    assert len(done.stdout) == 1 << 20
    assert hashlib.sha256(done.stdout).hexdigest() == summed


def test_exec_ends_at_its_timeout_and_so_does_the_command(directory: Path) -> None:
    done = kuasar_debug(
        "exec", "--dir", str(directory), "--timeout", "3", "--", "sh", "-c", "echo up; sleep 4242"
    )
    assert (done.returncode, done.stdout) == (124, b"up\n"), done.stderr
    left = eventually(lambda: execute(directory, "ps").stdout, lambda shown: b"4242" not in shown)
    assert b"4242" not in left
    assert b"PID" in left


def test_the_shell_is_a_terminal_with_real_keystrokes(directory: Path, tmp_path: Path) -> None:
    with debug_shell(tmp_path, f"--dir {directory}") as screen:
        screen.line("PS1='$ '; clear; echo $((6 * 7)); stty size")
        screen.shows("42", within=GUEST)
        screen.shows("30 100", within=GUEST)
        screen.interrupt(within=GUEST)
        screen.line("clear; vi /run/new")
        screen.shows("~", within=GUEST)
        screen.keys(":q", "Enter")
        # What is typed before the prompt may still go to vi.
        screen.shows("$", within=GUEST)
        screen.line("clear; tty; exit 7")
        screen.shows("status 7", within=GUEST)
        assert "/dev/pts/" in screen.text()


def test_socat_reaches_a_shell_through_the_hybrid_socket(directory: Path) -> None:
    done = subprocess.run(
        ["socat", "-t", "60", "-", f"UNIX-CONNECT:{directory}/task.vsock"],
        input=b"CONNECT 1025\necho answer $((6 * 7))\nexit\n",
        capture_output=True,
        timeout=GUEST,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"OK ")
    assert b"answer 42\r\n" in done.stdout


def test_the_end_of_input_ends_a_shell_over_vsock(directory: Path) -> None:
    done = subprocess.run(
        ["socat", "-t", "60", "-", f"UNIX-CONNECT:{directory}/task.vsock"],
        input=b"CONNECT 1025\necho answer $((6 * 7))\n",
        capture_output=True,
        timeout=GUEST,
        check=False,
    )
    assert b"answer 42\r\n" in done.stdout
    left = execute(directory, "sh", "-c", "ps | grep -c '[/]bin/bash'")
    assert left.stdout == b"0\n", left


def test_logs_are_those_of_the_console(directory: Path) -> None:
    plain = kuasar_debug("logs", "--dir", str(directory))
    assert b'msg="serving"' in plain.stdout
    lines = kuasar_debug("logs", "--dir", str(directory), "--json", "--level", "info").stdout
    messages = [json.loads(line)["msg"] for line in lines.splitlines()]
    assert {"serving", "debug server"} <= set(messages)


def test_ps_of_an_idle_guest_is_empty(directory: Path) -> None:
    done = kuasar_debug("ps", "--dir", str(directory))
    assert (done.returncode, done.stdout) == (0, b"CONTAINER  PID  STATUS  EXIT  PROCESSES\n")
    unknown = kuasar_debug("ps", "--dir", str(directory), "nobody")
    assert unknown.returncode == 1
    assert unknown.stderr.count(b"\n") == 1


def test_a_stopped_guest_is_one_clear_line(directory: Path) -> None:
    assert kuasar_debug("stop", "--dir", str(directory)).returncode == 0
    done = execute(directory, "true")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"Error: ")
    assert done.stderr.count(b"\n") == 1


def test_without_debug_the_port_is_closed_and_that_is_said(guest: Guest) -> None:
    with pytest.raises(HostError, match=r"needs task\.debug on the guest's kernel command line"):
        GuestAddress.of_directory(guest.vm.directory).dial(1025)
