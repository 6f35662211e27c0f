"""The choice of an accelerator, with a program in QEMU's place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kuasar_host import accel


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel, a /dev/kvm that may be opened, and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "cache"))
    for name in ("kvm", "vmlinux"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(accel, "_DEVICE", tmp_path / "kvm")
    return tmp_path / "vmlinux"


def pretend_qemu(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str) -> Path:
    """Make `script` what QEMU does; each run leaves a line in the file returned."""
    runs = directory / "runs"
    program = directory / "qemu"
    program.write_text(f"#!/bin/sh\necho >>{runs}\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(accel, "QEMU", os.fspath(program))
    return runs


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("echo Linux version 6; echo Kernel panic - no root", "kvm"),
        ("echo KVM internal error. Suberror: 1; exec sleep 1000", "tcg"),
        ("echo Linux version 6", "tcg"),
        ("exit 1", "tcg"),
    ],
)
def test_kvm_is_chosen_only_when_a_kernel_comes_up(
    monkeypatch: pytest.MonkeyPatch, kernel: Path, script: str, name: str
) -> None:
    pretend_qemu(monkeypatch, kernel.parent, script)
    assert accel.choose("auto", kernel).name == name


def test_a_kernel_that_stays_silent_is_given_up(
    monkeypatch: pytest.MonkeyPatch, kernel: Path
) -> None:
    monkeypatch.setattr(accel, "_PROOF_WITHIN", 0.1)
    pretend_qemu(monkeypatch, kernel.parent, "exec sleep 1000")
    assert accel.choose("auto", kernel).name == "tcg"


def test_a_verdict_is_kept_for_its_kernel_only(
    monkeypatch: pytest.MonkeyPatch, kernel: Path
) -> None:
    runs = pretend_qemu(monkeypatch, kernel.parent, "echo Kernel panic")
    assert [accel.choose("auto", kernel).name for _ in range(2)] == ["kvm", "kvm"]
    assert runs.read_text() == "\n"
    kernel.write_bytes(b"another")
    accel.choose("auto", kernel)
    assert runs.read_text() == "\n\n"


def test_a_verdict_is_taken_back_when_kvm_fails_later(
    monkeypatch: pytest.MonkeyPatch, kernel: Path
) -> None:
    pretend_qemu(monkeypatch, kernel.parent, "echo Kernel panic")
    assert accel.choose("auto", kernel).name == "kvm"
    accel.distrust(kernel)
    assert accel.choose("auto", kernel).name == "tcg"


def test_without_the_device_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, kernel: Path) -> None:
    runs = pretend_qemu(monkeypatch, kernel.parent, "echo Kernel panic")
    (kernel.parent / "kvm").unlink()
    chosen = accel.choose("auto", kernel)
    assert chosen.name == "tcg"
    assert chosen.reason.startswith("no ")
    assert not runs.exists()


def test_what_was_asked_for_is_taken_untried(monkeypatch: pytest.MonkeyPatch, kernel: Path) -> None:
    runs = pretend_qemu(monkeypatch, kernel.parent, "exit 1")
    assert accel.choose("kvm", kernel).name == "kvm"
    assert accel.choose("tcg", kernel).name == "tcg"
    assert not runs.exists()
