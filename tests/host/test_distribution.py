"""Wheel and source distribution, as `pip install` uses them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from venv import EnvBuilder

import pytest

from kuasar_agent import __version__

ROOT = Path(__file__).resolve().parents[2]
_BUILD = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"
# Each stands for a part of the checkout: sources, tests, image, messages, documents.
_IN_SOURCE = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "setup.cfg",
    "setup.py",
    "debug/kuasar_host/vsock/device.py",
    "docs/boot-timeline.svg",
    "image/boot_init.sh",
    "image/requirements.txt",
    "kuasar_agent/api/task_pb2.pyi",
    "proto/generate.py",
    "proto/kuasar_agent/api/task.proto",
    "requirements/unit.txt",
    "tests/interop/go/client/main.go",
    "tests/own_root",
    "tests/unit/proto_contract.txt",
]


def sources() -> list[Path]:
    """Return the files of the checkout that git knows or would know."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, built from a copy, so that nothing is left in the checkout."""
    tree, output = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in sources():
        copy = tree / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    for kind in ("build_sdist", "build_wheel"):
        command = [sys.executable, "-c", _BUILD, kind, str(output)]
        subprocess.run(command, cwd=tree, check=True, capture_output=True, timeout=300)
    return output


def test_both_commands_run_from_the_wheel_in_an_environment_of_its_own(
    distributions: Path, tmp_path: Path
) -> None:
    EnvBuilder().create(tmp_path / "venv")
    bin = tmp_path / "venv" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(bin / "python")]
    (wheel,) = distributions.glob("*.whl")
    locked = ["--require-hashes", "-r", str(ROOT / "image" / "requirements.txt")]
    for arguments in (locked, ["--no-deps", str(wheel)]):
        subprocess.run([*pip, "install", "-q", *arguments], check=True, timeout=300)
    subprocess.run([*pip, "check"], check=True, timeout=60)
    for name in ("kuasar-agent", "kuasar-debug"):
        for option, expected in (("--help", f"Usage: {name} "), ("--version", __version__)):
            command = [str(bin / name), option]
            shown = subprocess.run(
                command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
            )
            assert expected in shown.stdout
            assert shown.stderr == ""


def test_the_source_distribution_has_what_builds_and_tests_the_package(
    distributions: Path,
) -> None:
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert [name for name in _IN_SOURCE if name not in names] == []
    # Of the checkout only git's own settings stay behind.
    assert {str(name) for name in sources()} - names == {".gitignore"}
