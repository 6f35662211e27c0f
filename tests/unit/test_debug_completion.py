"""kuasar-debug's words, completed by a real shell, and its help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kuasar_debug.cli import main

# What bash does for <Tab>: set these and call the function that `complete` names.
_PRESS_TAB = """
eval "$(kuasar-debug completion bash)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_kuasar_debug_completion kuasar-debug
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["st"], {"stats", "stop"}),
        (["boot", "--sharefs", ""], {"virtiofs", "9p"}),
        (["logs", "--lev"], {"--level"}),
        (["logs", "a1"], {"a1b2", "a1c3"}),
        (["ps", "a1b2", ""], {"one", "two"}),
        (["ps", "a1b2", "one", "t"], {"two"}),
        (["dump", "--address", "vsock://3", ""], set()),
    ],
)
def test_bash_completes_commands_options_sandboxes_and_containers(
    tmp_path: Path, typed: list[str], words: set[str]
) -> None:
    for path in ("a1b2/shared/one", "a1b2/shared/two", "a1c3", "f0e1"):
        (tmp_path / path).mkdir(parents=True)
    for name in ("one", "two"):
        (tmp_path / "a1b2/shared" / name / "config.json").touch()
    search = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "--norc", "-c", _PRESS_TAB, "bash", "kuasar-debug", *typed],
        env={
            "PATH": search,
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "KUASAR_SANDBOXES": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert set(done.stdout.split()) == words, done.stderr


def commands() -> list[click.Command]:
    return list(main.commands.values())


@pytest.mark.parametrize("command", commands(), ids=lambda command: str(command.name))
def test_every_command_and_option_has_a_help_text_that_is_shown_whole(
    command: click.Command,
) -> None:
    assert len(command.get_short_help_str(1000)) < 45
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter.name


def test_the_list_of_commands_cuts_no_summary() -> None:
    with click.Context(main, info_name="kuasar-debug") as context:
        assert "..." not in main.get_help(context).replace("[ARGS]...", "")
