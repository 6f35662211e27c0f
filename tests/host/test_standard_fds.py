"""Standard file descriptors, as the kernel may hand them to init."""

from __future__ import annotations

import os
import pty
import select
import stat
import sys
from pathlib import Path

import pytest

from kuasar_agent import log
from kuasar_agent.boot.standard_fds import attach_console, reserve_standard_fds
from tests.support.isolation import isolated


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """A /dev with null and zero only; a console is for the test to add."""
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    return tmp_path


def close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


def read_until(terminal: int, end: bytes) -> bytes:
    """What arrives up to `end`; the terminal hands over writes one by one."""
    text = b""
    while end not in text and select.select([terminal], [], [], 10)[0]:
        text += os.read(terminal, 4096)
    return text


def test_closed_standard_fds_are_not_given_to_the_next_file() -> None:
    def body() -> tuple[list[int], int]:
        close(0, 2)
        return reserve_standard_fds(), os.open("/dev/null", os.O_RDONLY)

    placeholders, fd = isolated(body)
    assert placeholders == [0, 2]
    assert fd > 2


def test_open_standard_fds_are_left_alone() -> None:
    assert isolated(reserve_standard_fds) == []


def test_missing_outputs_become_the_console_and_stdin_null(dev: Path) -> None:
    def body() -> tuple[list[str], bytes]:
        master, slave = pty.openpty()
        (dev / "console").symlink_to(os.ttyname(slave))
        close(0, 1, 2)
        sys.stdout = sys.stderr = None
        attach_console(reserve_standard_fds(), str(dev))
        os.write(1, b"out ")
        print("err", file=sys.stderr)
        log.get_logger("x").info("logged")
        assert [os.get_inheritable(fd) for fd in range(3)] == [True] * 3
        # children must not see the log's non-blocking mode
        assert [os.get_blocking(fd) for fd in (1, 2)] == [True, True]
        assert not os.get_blocking(log.console.fd)
        assert not os.get_inheritable(log.console.fd)
        names = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in range(3)]
        same = names[1] == names[2] == os.ttyname(slave)
        return [names[0], str(same)], read_until(master, b'msg="logged"')

    (stdin, same), text = isolated(body)
    assert (stdin, same) == (str(dev / "null"), "True")
    assert text.startswith(b"out err\r\n")
    assert b'msg="logged"' in text


def test_without_a_console_the_kernel_log_is_next_and_then_null(dev: Path) -> None:
    def body() -> list[str]:
        close(0, 1, 2)
        attach_console(reserve_standard_fds(), str(dev))
        return [os.path.realpath(f"/proc/self/fd/{fd}") for fd in range(3)]

    assert isolated(body) == [str(dev / "null")] * 3
    (dev / "kmsg").touch()
    assert isolated(body) == [str(dev / name) for name in ("null", "kmsg", "kmsg")]


def test_the_terminal_of_the_console_does_not_become_the_agents_own(dev: Path) -> None:
    def body() -> int:
        _, slave = pty.openpty()
        (dev / "console").symlink_to(os.ttyname(slave))
        close(0, 1, 2)
        os.setsid()
        attach_console(reserve_standard_fds(), str(dev))
        try:
            return os.open("/dev/tty", os.O_RDWR)
        except OSError:
            return -1

    assert isolated(body) == -1
