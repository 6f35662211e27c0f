"""Module lists, up to the kernel's answer; loading for real needs a guest of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from kuasar_agent import log
from kuasar_agent.linux import modules


def test_an_image_without_a_list_needs_no_modules(tmp_path: Path) -> None:
    assert modules.load_list(str(tmp_path / "load.list")) == []


def test_a_module_that_fails_is_named_and_the_next_one_tried(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent, junk, load_list = tmp_path / "absent.ko", tmp_path / "junk.ko", tmp_path / "load.list"
    junk.write_bytes(b"not a module")
    load_list.write_text(f"# comment\n\n{absent}\n  {junk}\n")
    monkeypatch.setattr(log, "console", log.LogSink(2))
    failures = modules.load_list(str(load_list))
    assert [error.filename for error in failures] == [str(absent), str(junk)]
    first, second = capfd.readouterr().err.splitlines()
    assert f"module={absent}" in first
    assert "ENOENT" in first
    assert f"module={junk}" in second
