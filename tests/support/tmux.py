"""A terminal with real keystrokes: tmux runs a program, tests type and look at the screen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import eventually


class Screen:
    """One window of a tmux server of its own."""

    def __init__(self, directory: Path) -> None:
        self._tmux = ["tmux", "-S", str(directory / "tmux"), "-f", "/dev/null"]

    def open(self, command: str, cols: int, rows: int) -> None:
        self._call("new-session", "-d", "-x", str(cols), "-y", str(rows), command)

    def keys(self, *keys: str) -> None:
        """Press keys by their names in tmux; other words are typed."""
        self._call("send-keys", *keys)

    def line(self, text: str) -> None:
        self.keys(text, "Enter")

    def interrupt(self, within: float = 20.0) -> None:
        """Run a program that never ends, and stop it with Ctrl-C.

        It says itself that it runs: a Ctrl-C while bash still forks is lost, or makes bash take a
        later command for a part of the same job, whose end it awaits.
        """
        self.line("clear; sh -c 'echo up$((1)); exec sleep 1000'")
        self.shows("up1", within)
        self.keys("C-c")

    def resize(self, cols: int, rows: int) -> None:
        self._call("resize-window", "-x", str(cols), "-y", str(rows))

    def text(self) -> str:
        return self._call("capture-pane", "-p")

    def shows(self, text: str, within: float = 20.0) -> None:
        """Wait until a line of the screen is `text`."""
        shown = eventually(
            self.text, lambda shown: text in map(str.rstrip, shown.splitlines()), within
        )
        assert text in map(str.rstrip, shown.splitlines()), shown

    def prompts(self) -> None:
        """Wait until the shell asks for a command, with `$ `: the program that it ran before may
        still take what is typed."""
        shown = eventually(self.text, lambda shown: shown.rstrip().endswith("\n$"), 20.0)
        assert shown.rstrip().endswith("\n$"), shown

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    def _call(self, *args: str) -> str:
        # A tmux around the tests is none of this one's business.
        env = {name: value for name, value in os.environ.items() if name != "TMUX"}
        env["LC_ALL"] = "C.UTF-8"
        done = subprocess.run(
            [*self._tmux, *args], check=True, capture_output=True, text=True, env=env
        )
        return done.stdout


@contextmanager
def debug_shell(directory: Path, *where: str) -> Iterator[Screen]:
    """`kuasar-debug shell` in a window; its exit status is shown at its end as `status N`."""
    screen = Screen(directory)
    command = f"{sys.executable} -m kuasar_debug shell {' '.join(where)}"
    try:
        screen.open(f"{command}; echo status $?; exec sleep 1000", 100, 30)
        yield screen
    finally:
        screen.close()
