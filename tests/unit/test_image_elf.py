"""ELF, against real shared objects of this environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import greenlet._greenlet
import pytest

from image import elf
from image.errors import BuildError

EXTENSION = Path(str(greenlet._greenlet.__file__))


def test_the_libraries_that_a_file_needs_are_found() -> None:
    assert {"libstdc++.so.6", "libc.so.6"} <= set(elf.needed(EXTENSION.read_bytes()))


def test_a_stripped_extension_is_smaller_and_still_works(tmp_path: Path) -> None:
    whole = EXTENSION.read_bytes()
    stripped = elf.stripped(whole)
    assert len(stripped) < len(whole)
    assert elf.needed(stripped) == elf.needed(whole)
    (tmp_path / "greenlet").mkdir()
    for source in EXTENSION.parent.glob("*.py"):
        (tmp_path / "greenlet" / source.name).write_bytes(source.read_bytes())
    (tmp_path / "greenlet" / EXTENSION.name).write_bytes(stripped)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import greenlet;"
        "assert greenlet.__file__.startswith(sys.argv[1]);"
        "print(greenlet.greenlet(lambda: 7).switch())"
    )
    command = [sys.executable, "-I", "-c", script, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"7\n"


def test_stripping_twice_changes_nothing_more() -> None:
    once = elf.stripped(EXTENSION.read_bytes())
    assert elf.stripped(once) == once


def test_what_is_no_elf_file_is_an_error() -> None:
    assert not elf.is_elf(b"#!/bin/sh\n")
    with pytest.raises(BuildError, match="ELF"):
        elf.needed(b"#!/bin/sh\n")
