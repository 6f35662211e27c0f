"""The agent as PID 1: it cannot be killed, and it reaps."""

from __future__ import annotations

from tests.support.guest import Guest


def test_the_agent_is_the_first_process(guest: Guest) -> None:
    result = guest.run("cat", "/proc/1/cmdline", guest_pids=True)
    assert b"/sbin/init" in result.stdout or b"/init" in result.stdout


def test_no_signal_from_inside_ends_it(guest: Guest) -> None:
    result = guest.run("sh", "-c", "kill -TERM 1; kill -INT 1; kill -KILL 1", guest_pids=True)
    assert result.status == 0, result.stderr
    guest.check()


def test_a_thousand_orphans_leave_no_zombie(guest: Guest) -> None:
    script = """
        i=0
        while [ $i -lt 1000 ]; do (true & ) ; i=$((i + 1)); done
        zombies() { cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z 1 ' ; }
        n=0
        while [ "$(zombies)" != 0 ] && [ $n -lt 50 ]; do usleep 100000; n=$((n + 1)); done
        zombies
    """
    result = guest.run("sh", "-c", script, guest_pids=True)
    assert result.stdout == b"0\n", result


def test_a_container_that_exits_at_once_is_never_lost(guest: Guest) -> None:
    assert [guest.run("sh", "-c", f"exit {n}").status for n in range(20)] == list(range(20))
