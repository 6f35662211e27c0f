"""`make proto`, which takes protoc: the modules in the tree are those that it makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = ROOT / "proto" / "generate.py"


def generate(output: Path) -> None:
    subprocess.run([sys.executable, "-P", GENERATOR, "--output", output], check=True, timeout=120)


def generated_files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for pattern in ("*_pb2.py", "*_pb2.pyi", "*_ttrpc.py")
        for path in (root / "kuasar_agent").rglob(pattern)
    }


def test_regenerating_changes_nothing(tmp_path: Path) -> None:
    generate(tmp_path)
    assert generated_files(tmp_path) == generated_files(ROOT)


def test_generator_removes_modules_without_a_proto_file(tmp_path: Path) -> None:
    package = tmp_path / "kuasar_agent" / "api"
    package.mkdir(parents=True)
    stale = [package / "gone_pb2.py", package / "gone_pb2.pyi"]
    kept = package / "__init__.py"
    for path in (*stale, kept):
        path.touch()
    generate(tmp_path)
    assert not any(path.exists() for path in stale)
    assert kept.exists()
