"""`kuasar-debug shell` on a terminal, with real keystrokes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.debug_agent import DebugAgent, debug_agent
from tests.support.tmux import Screen, debug_shell
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebugAgent]:
    with debug_agent(tmp_path_factory.mktemp("console")) as agent:
        yield agent


@pytest.fixture
def screen(shared: DebugAgent, tmp_path: Path) -> Iterator[Screen]:
    with debug_shell(tmp_path, f"--address unix://{shared.ports}") as screen:
        screen.line("PS1='$ '; clear; echo $((6 * 7))")
        screen.shows("42")
        yield screen
    shared.assert_clean()


def test_ctrl_c_stops_the_program_and_not_the_shell(screen: Screen) -> None:
    screen.interrupt()
    screen.line("echo $((7 * 7))")
    screen.shows("49")


def test_the_size_follows_the_window(screen: Screen) -> None:
    screen.line("clear; stty size")
    screen.shows("30 100")
    screen.resize(132, 43)
    # The program in the foreground is told, too.
    screen.line("clear; until [ \"$(stty size)\" = '43 132' ]; do sleep 0.1; done; stty size")
    screen.shows("43 132")


def test_vi_opens_edits_and_quits(screen: Screen, tmp_path: Path) -> None:
    file = tmp_path / "written"
    screen.line(f"busybox vi {file}")
    screen.shows("~")
    screen.keys("i", "from vi")
    screen.shows("from vi")
    # Keys right after an escape would be taken for an escape sequence.
    screen.keys("Escape")
    assert "\n- " in eventually(screen.text, lambda text: "\n- " in text)
    screen.keys(":wq", "Enter")
    screen.prompts()
    screen.line("clear; echo $((8 * 8))")
    screen.shows("64")
    assert file.read_text() == "from vi\n"


def test_job_control_stops_and_continues(screen: Screen) -> None:
    screen.line("clear; sh -c 'echo go$((1)); exec cat'")
    screen.shows("go1")
    screen.keys("C-z")
    screen.prompts()
    screen.line("jobs | wc -l; fg")
    screen.shows("1")
    screen.line("still here")
    screen.shows("still here")
    screen.keys("C-d")
    screen.prompts()
    screen.line("echo $((9 * 9))")
    screen.shows("81")


def test_the_exit_status_is_that_of_the_shell(screen: Screen) -> None:
    screen.line("exit 7")
    screen.shows("status 7")


def test_ctrl_bracket_kills_a_shell_that_does_not_answer(screen: Screen) -> None:
    screen.line("clear; stty raw -echo; echo deaf; sleep 1000")
    screen.shows("deaf")
    screen.keys("C-]")
    screen.shows("status 137")
