"""ExecVMProcess: commands, their input, output and end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import gevent
import pytest
from gevent.event import Event

from kuasar_agent.errors import AgentError, Cancelled, InvalidArgument
from kuasar_agent.reaper import Reaper
from kuasar_agent.sandbox import commands
from tests.support.isolation import fork
from tests.support.processes import children_of, fd_targets
from tests.support.waiting import eventually

T = TypeVar("T")


def with_reaper(body: Callable[[Reaper], T]) -> T:
    """The result of `body` in a process of its own, where no descriptor and no child is left."""

    def inside() -> T:
        reaper = Reaper()
        reaper.start()
        gevent.sleep(0)
        before = fd_targets(os.getpid())
        result = body(reaper)
        assert fd_targets(os.getpid()) == before
        assert children_of(os.getpid()) == []
        return result

    return fork(inside)


def run(command: str, stdin: bytes = b"") -> str:
    return with_reaper(lambda reaper: commands.run(reaper, command, stdin, Event()))


def refusal(command: str) -> str:
    def body(reaper: Reaper) -> str:
        try:
            return commands.run(reaper, command, b"", Event())
        except AgentError as error:
            return f"{type(error).__name__}: {error.message}"

    return with_reaper(body)


def test_output_is_what_the_shell_writes() -> None:
    assert run("echo $((6 * 7)); echo no >&2; pwd; echo ${BASH##*/}") == "42\n/\nbash\n"


def test_without_input_there_is_dev_null() -> None:
    assert run("readlink /proc/self/fd/0; cat") == "/dev/null\n"


def test_input_ends() -> None:
    assert run("cat; echo end", b"abc\n") == "abc\nend\n"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert run(r"printf 'a\377b'") == "a\ufffdb"


def test_the_error_has_the_status_and_what_was_said() -> None:
    said = "Unknown: cmd echo no >&2; exit 3 failed with exit code 3 and error message no\n"
    assert refusal("echo no >&2; exit 3") == said
    killed = "Unknown: cmd kill -9 $$ failed with exit code 137 and error message "
    assert refusal("kill -9 $$") == killed


def test_a_command_longer_than_the_kernel_takes_is_refused() -> None:
    assert refusal(":" * 200_000) == "Unknown: spawn failed error: Argument list too long"
    with pytest.raises(InvalidArgument):
        commands.run(Reaper(), "a\0b", b"", Event())


def test_64_mib_of_input_to_a_command_that_writes_meanwhile() -> None:
    size = 64 << 20
    out = run("cat", bytes(size))
    assert len(out.encode()) < 4 << 20
    assert out.endswith(f"\0\n[output cut after {commands.OUTPUT_LIMIT} bytes]\n")


def test_replacing_bytes_does_not_exceed_the_limit() -> None:
    out = run(r"head -c 2000000 /dev/zero | tr '\0' '\377'")
    assert len(out.encode()) < 4 << 20
    assert out.endswith(f"\ufffd\n[output cut after {commands.OUTPUT_LIMIT} bytes]\n")


def test_input_that_nobody_reads_does_no_harm() -> None:
    assert run("exec <&-; echo done", bytes(1 << 20)) == "done\n"


def test_an_endless_writer_leaves_others_their_turn() -> None:
    def body(reaper: Reaper) -> bool:
        cancelled = Event()
        running = gevent.spawn(commands.run, reaper, "yes", b"", cancelled)
        for _ in range(200):
            gevent.sleep(0.001)
        cancelled.set()
        running.join(60)
        return isinstance(running.exception, Cancelled)

    assert with_reaper(body)


def test_a_process_in_the_background_holds_nothing_up() -> None:
    def body(reaper: Reaper) -> str:
        out = commands.run(reaper, "sleep 1000 & echo $!", b"", Event())
        os.kill(int(out), 0)  # it lives on
        os.kill(int(out), 9)
        return out

    assert with_reaper(body)


def test_who_waits_no_longer_has_the_whole_group_killed() -> None:
    def body(reaper: Reaper) -> str:
        cancelled = Event()
        read, write = os.pipe()
        script = f"sleep 1000 & echo $! > /proc/{os.getpid()}/fd/{write}; wait"
        running = gevent.spawn(commands.run, reaper, script, b"", cancelled)
        os.set_blocking(read, False)
        pid = int(gevent.os.nb_read(read, 100))
        cancelled.set()
        running.join(60)
        gone = eventually(Path(f"/proc/{pid}").exists, lambda there: not there)
        for fd in (read, write):
            os.close(fd)
        return f"{type(running.exception).__name__} {gone}"

    assert with_reaper(body) == "Cancelled False"
