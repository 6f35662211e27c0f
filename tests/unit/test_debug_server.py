"""The debug server's first line, and the terminal type that a shell gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from kuasar_agent.debug_server import shell
from kuasar_agent.debug_server.first_line import (
    Attach,
    Control,
    Exec,
    Mode,
    Plain,
    parse_mode,
)

TOKEN = b"0123456789abcdef"


@pytest.mark.parametrize(
    ("data", "mode"),
    [
        (b"", Plain(b"")),
        (b"ls\n", Plain(b"ls\n")),
        (b"KSR_MODE exec", Exec(b"")),
        (b"KSR_MODE exec\r\nls\n", Exec(b"ls\n")),
        (b"KSR_MODE exec \n", Plain(b"KSR_MODE exec \n")),
        (b"KSR_MODE session 24 80 xterm\nsize", Control(24, 80, "xterm", b"size")),
        (b"KSR_MODE session 99999 80 xterm\n", Control(0xFFFF, 80, "xterm", b"")),
        (b"KSR_MODE session 24 80\n", Plain(b"KSR_MODE session 24 80\n")),
        (
            b"KSR_MODE attach %s\nls" % TOKEN,
            Attach(TOKEN, b"ls", b"KSR_MODE attach %s\nls" % TOKEN),
        ),
        (b"KSR_MODE attach short\n", Plain(b"KSR_MODE attach short\n")),
    ],
)
def test_the_first_line_selects_the_mode_and_the_rest_is_kept(data: bytes, mode: Mode) -> None:
    assert parse_mode(data) == mode


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("xterm-256color", "xterm-256color"),
        ("tmux-256color", "tmux"),
        ("alacritty", "xterm"),
        ("../x", "xterm"),
        ("-", "xterm"),
    ],
)
def test_a_terminal_type_without_a_description_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, known: str
) -> None:
    for described in ("xterm", "xterm-256color", "tmux"):
        file = tmp_path / described[0] / described
        file.parent.mkdir(exist_ok=True)
        file.touch()
    monkeypatch.setattr(shell, "_TERMINFO", (str(tmp_path),))
    assert shell.known_term(name) == known
