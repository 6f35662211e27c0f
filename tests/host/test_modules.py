"""Module lists and device nodes, up to the kernel's answer; loading for real needs a guest."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kuasar_agent import log
from kuasar_agent.linux import modules


def test_an_image_without_a_list_needs_no_modules(tmp_path: Path) -> None:
    assert modules.load_list("load", str(tmp_path)) == []


def test_a_module_that_fails_is_named_and_the_next_one_tried(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent, junk = tmp_path / "absent.ko", tmp_path / "junk.ko"
    junk.write_bytes(b"not a module")
    (tmp_path / "9p.list").write_text(f"# comment\n\n{absent}\n  {junk}\n")
    monkeypatch.setattr(log, "console", log.LogSink(2))
    failures = modules.load_list("9p", str(tmp_path))
    assert [error.filename for error in failures] == [str(absent), str(junk)]
    first, second = capfd.readouterr().err.splitlines()
    assert f"module={absent}" in first
    assert "ENOENT" in first
    assert f"module={junk}" in second


def test_nodes_that_load_a_driver_are_made_once(tmp_path: Path) -> None:
    listing = "# Device nodes to trigger on-demand module loading.\ntun net/tun c10:200\nd d b7:0\n"
    (tmp_path / "modules.devname").write_text(listing)
    dev = tmp_path / "dev"
    dev.mkdir()
    for _ in range(2):
        modules.make_nodes(str(tmp_path), str(dev))
    tun, disk = (dev / "net/tun").stat(), (dev / "d").stat()
    assert stat.S_ISCHR(tun.st_mode)
    assert (os.major(tun.st_rdev), os.minor(tun.st_rdev)) == (10, 200)
    assert stat.S_ISBLK(disk.st_mode)


def test_a_kernel_without_modules_needs_no_nodes(tmp_path: Path) -> None:
    modules.make_nodes(str(tmp_path), str(tmp_path))
    assert list(tmp_path.iterdir()) == []
