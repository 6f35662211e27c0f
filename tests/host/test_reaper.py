"""The reaper with real processes, each test in an interpreter that inherits its orphans."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL

import gevent
import pytest

from kuasar_agent.containers.runtime import OCIRuntime
from kuasar_agent.errors import DeadlineExceeded
from kuasar_agent.linux import syscalls
from kuasar_agent.reaper import Child, Reaper
from tests.support.isolation import fresh_process, isolated
from tests.support.processes import children_of
from tests.support.timeouts import TIMEOUT
from tests.support.waiting import eventually

ORPHANS = 1000
SHORT_LIVES = 3000


def started() -> Reaper:
    reaper = Reaper()
    reaper.start()
    return reaper


class Stranger:
    """An unregistered child, as an orphan is; `end` makes it exit with `status`."""

    def __init__(self, status: int) -> None:
        reader, self._writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writer)
            os.read(reader, 1)
            os._exit(status)
        os.close(reader)

    def end(self) -> None:
        # later strangers hold the pipe open too, so that closing it is not enough
        os.write(self._writer, b"x")
        os.close(self._writer)

    def end_unreaped(self) -> None:
        """End and become a zombie; the hub does not run meanwhile."""
        self.end()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)


def reap(reaper: Reaper, count: int) -> int:
    """Let the hub run until `count` processes were reaped in all."""
    return eventually(lambda: reaper.reaped, lambda reaped: reaped >= count, TIMEOUT)


def status_of(child: Child) -> int | None:
    exit = child.wait_for(TIMEOUT)
    return exit.status if exit else None


def thousand_orphans_that_end_together() -> tuple[int, int, list[str]]:
    reaper = started()
    reader, writer = os.pipe()
    script = f"exec 3<&0; i=0; while [ $i -lt {ORPHANS} ]; do (read x <&3 &); i=$((i+1)); done"
    assert status_of(reaper.spawn(["sh", "-c", script], (reader, DEVNULL, DEVNULL))) == 0
    alive = len(children_of(os.getpid()))
    os.close(reader)
    os.close(writer)
    return alive, reap(reaper, ORPHANS + 1), children_of(os.getpid())


def test_orphans_are_reaped_however_many_end_at_once() -> None:
    result = fresh_process(thousand_orphans_that_end_together)
    assert result == (ORPHANS, ORPHANS + 1, [])


def exits_before_the_start() -> int:
    Stranger(0).end_unreaped()
    return reap(started(), 1)


def test_exits_from_before_the_start_are_collected() -> None:
    assert fresh_process(exits_before_the_start) == 1


def statuses_of_children() -> list[int | None]:
    reaper = started()
    scripts = ["exit 0", "exit 255", "kill -TERM $$", "kill -KILL $$"]
    return [status_of(reaper.spawn(["sh", "-c", script])) for script in scripts]


def test_a_status_is_the_exit_code_or_128_and_the_signal() -> None:
    expected = [0, 255, 128 + signal.SIGTERM, 128 + signal.SIGKILL]
    assert fresh_process(statuses_of_children) == expected


def child_before_and_after_its_end() -> list[object]:
    reaper = started()
    before = time.time_ns()
    child = reaper.spawn(["sleep", "1000"])
    results: list[object] = [child.wait_for(0.01), child.signal(signal.SIGKILL)]
    exit = child.wait()
    assert before <= exit.at_ns <= time.time_ns()
    return [*results, exit.pid == child.pid, child.signal(signal.SIGKILL)]


def test_a_reaped_child_takes_no_signal() -> None:
    assert fresh_process(child_before_and_after_its_end) == [None, True, True, False]


def claim_of_the_dead() -> tuple[int | None, int | None]:
    reaper = started()
    with reaper.adopting() as adoption:
        stranger = Stranger(9)
        stranger.end()
        reap(reaper, 1)
        first = status_of(adoption.claim(stranger.pid))
        killed = Stranger(0)
        os.kill(killed.pid, signal.SIGKILL)
        reap(reaper, 2)
        return first, status_of(adoption.claim(killed.pid))


def test_a_process_that_ended_before_the_claim_has_its_status() -> None:
    assert fresh_process(claim_of_the_dead) == (9, 128 + signal.SIGKILL)


def claim_of_a_zombie() -> int | None:
    reaper = started()
    with reaper.adopting() as adoption:
        stranger = Stranger(8)
        stranger.end_unreaped()
        return status_of(adoption.claim(stranger.pid))


def test_a_process_that_ended_but_is_not_reaped_has_its_status() -> None:
    assert fresh_process(claim_of_a_zombie) == 8


def claim_of_the_living() -> tuple[object, int | None]:
    reaper = started()
    stranger = Stranger(7)
    with reaper.adopting() as adoption:
        child = adoption.claim(stranger.pid)
    running = child.wait_for(0.01)
    stranger.end()
    return running, status_of(child)


def test_a_process_that_lives_is_waited_for() -> None:
    assert fresh_process(claim_of_the_living) == (None, 7)


def refused(claim: Callable[[int], Child], pid: int) -> bool:
    try:
        claim(pid)
    except ChildProcessError:
        return True
    return False


def claims_of_others() -> list[bool]:
    reaper = started()
    stranger = Stranger(0)
    stranger.end()
    reap(reaper, 1)
    with reaper.adopting() as adoption:
        pids = [1, os.getpid(), os.getppid(), stranger.pid]
        results = [refused(adoption.claim, pid) for pid in pids]
        registered = reaper.spawn(["true"])
        status_of(registered)
        return [*results, refused(adoption.claim, registered.pid)]


def test_what_is_no_child_or_ended_earlier_or_was_registered_cannot_be_claimed() -> None:
    assert fresh_process(claims_of_others) == [True] * 5


def two_adoptions() -> tuple[int | None, int | None]:
    reaper = started()
    with reaper.adopting() as first, reaper.adopting() as second:
        strangers = [Stranger(1), Stranger(2)]
        for stranger in strangers:
            stranger.end()
        reap(reaper, 2)
        return (
            status_of(second.claim(strangers[0].pid)),
            status_of(first.claim(strangers[1].pid)),
        )


def test_every_open_adoption_sees_every_unknown_exit() -> None:
    assert fresh_process(two_adoptions) == (1, 2)


def claim_of_a_pid_used_twice() -> tuple[bool, int | None]:
    reaper = started()
    with reaper.adopting() as adoption:
        first = Stranger(3)
        first.end()
        reap(reaper, 1)
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
        second = Stranger(5)
        child = adoption.claim(second.pid)
        second.end()
        return first.pid == second.pid, status_of(child)


def claim_of_a_pid_used_twice_in_a_namespace() -> tuple[bool, int | None]:
    return isolated(claim_of_a_pid_used_twice, syscalls.CLONE_NEWPID)


def test_a_kept_exit_is_not_taken_for_that_of_the_pids_next_user() -> None:
    assert fresh_process(claim_of_a_pid_used_twice_in_a_namespace) == (True, 5)


def spawn_failures() -> tuple[list[str], list[str], int | None]:
    reaper = started()
    errors = []
    for path in ("/nonexistent", "/dev/null", "/"):
        try:
            reaper.spawn([path])
        except OSError as error:
            errors.append(type(error).__name__)
    left = children_of(os.getpid())
    return errors, left, status_of(reaper.spawn(["true"]))


def test_what_cannot_be_executed_raises_and_leaves_no_process() -> None:
    errors = ["FileNotFoundError", "PermissionError", "PermissionError"]
    assert fresh_process(spawn_failures) == (errors, [], 0)


def spawned_and_forgotten() -> list[int | None]:
    reaper = started()
    children = [reaper.spawn(["sh", "-c", f"exit {number}"]) for number in range(100)]
    return [status_of(child) for child in children]


def test_many_children_at_once_keep_their_own_statuses() -> None:
    assert fresh_process(spawned_and_forgotten) == list(range(100))


def greenlets_while_reaping() -> bool:
    """Whether another greenlet ran before a large batch was reaped to its end."""
    reaper = started()
    count = 300
    for _ in range(count):
        Stranger(0).end_unreaped()
    seen: list[int] = []
    with gevent.Timeout(TIMEOUT):
        while reaper.reaped < count:
            gevent.sleep(0)
            seen.append(reaper.reaped)
    return any(0 < reaped < count for reaped in seen)


def test_others_run_between_slices_of_a_large_reaping() -> None:
    assert fresh_process(greenlets_while_reaping)


def exits_noticed() -> int:
    reaper = started()
    # Nothing else wakes the hub: an exit that does not would be waited for in vain.
    return sum(
        reaper.spawn(["/bin/true"]).wait_for(TIMEOUT) is not None for _ in range(SHORT_LIVES)
    )


def test_an_exit_is_noticed_even_when_it_comes_as_the_hub_goes_to_sleep() -> None:
    assert fresh_process(exits_noticed) == SHORT_LIVES


def hanging_runtime() -> tuple[str, list[str]]:
    reaper = started()
    directory = Path.cwd()
    script = directory / "runtime"
    script.write_text("#!/bin/sh\nsleep 1000 &\nsleep 1000\n")
    script.chmod(0o755)
    runtime = OCIRuntime(reaper, str(script), str(directory), timeout=0.2)
    try:
        runtime.start("id")
    except DeadlineExceeded as error:
        left = eventually(lambda: children_of(os.getpid()), lambda left: not left)
        return str(error), left
    return "no error", []


def test_a_runtime_that_hangs_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message, left = fresh_process(hanging_runtime)
    assert "no answer within" in message
    assert left == []
