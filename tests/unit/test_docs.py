"""The documentation: links lead to files, and commands exist with their options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kuasar_agent.cli import main as kuasar_agent
from kuasar_debug.cli import main as kuasar_debug

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
PROGRAMS = {"kuasar-agent": kuasar_agent, "kuasar-debug": kuasar_debug}
MAKEFILE = (ROOT / "Makefile").read_text()


def commands(page: Path) -> Iterator[str]:
    """Yield the lines of code blocks and the inline code that begin with a program of ours."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```(?:sh|console)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", text)
    for line in [line for block in blocks for line in block.splitlines()] + inline:
        line = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
        if line.split(" ")[0] in ("make", *PROGRAMS) and " " in line:
            yield line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist_with_their_options(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line.partition(" #")[0].partition(" | ")[0], comments=False)
        if words[0] == "make":
            check_make(words[1:])
        else:
            check_program(PROGRAMS[words[0]], words[1:], line)


def check_make(words: list[str]) -> None:
    for word in words:
        name, assignment, _ = word.partition("=")
        if assignment:
            assert re.search(rf"\$\({name}\)|^{name}\b", MAKEFILE, re.MULTILINE), word
        else:
            assert re.search(rf"^{name}:", MAKEFILE, re.MULTILINE), word


def check_program(group: click.Command, words: list[str], line: str) -> None:
    assert isinstance(group, click.Group)
    for name in words[0].split("|"):
        command = group.commands.get(name)
        assert command is not None, line
        known = {option for param in command.params for option in param.opts + param.secondary_opts}
        own = words[1 : words.index("--")] if "--" in words else words[1:]
        given = {word.strip("[]").partition("=")[0] for word in own if word.lstrip("[")[:1] == "-"}
        assert given - {"--help"} <= known, line
