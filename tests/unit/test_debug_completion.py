"""kuasar-debug's words, completed by a real shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# What bash does for <Tab>: set these and call the function that `complete` names.
_PRESS_TAB = """
eval "$(kuasar-debug completion bash)"
COMP_WORDS=("$@" "") COMP_CWORD=$(($# - 1))
_kuasar_debug_completion kuasar-debug
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["st"], {"stats", "stop"}),
        (["boot", "--sharefs", ""], {"virtiofs", "9p"}),
        (["logs", "--lev"], {"--level"}),
    ],
)
def test_bash_completes_commands_options_and_values(typed: list[str], words: set[str]) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", _PRESS_TAB, "bash", "kuasar-debug", *typed],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert set(done.stdout.split()) == words, done.stderr
