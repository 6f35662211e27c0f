"""The package as a distribution of its own: built, installed into an empty environment, used."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from kuasar_agent import ttrpc

PACKAGE = Path(ttrpc.__file__).parent
ROOT = Path(__file__).resolve().parents[3]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
TESTS = ("test_server.py", "test_stream_states.py")


def run(*command: str | Path, cwd: Path) -> str:
    return subprocess.run(
        command, cwd=cwd, check=True, env={}, stdout=subprocess.PIPE, text=True
    ).stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and, by path, its dependencies."""
    place = tmp_path_factory.mktemp("distribution")
    shutil.copytree(PACKAGE, place / "source", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "LICENSE", place / "source")
    local = ("--no-deps", "--no-index")
    run(*PIP, "wheel", *local, "--no-build-isolation", "-w", place, place / "source", cwd=place)
    (wheel,) = place.glob("ttrpc-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place)
    python = place / "venv" / "bin" / "python"
    run(*PIP, "--python", python, "install", *local, wheel, cwd=place)
    (packages,) = (place / "venv").rglob("site-packages")
    # .pth files of a directory that is named in a .pth file are not read: the agent stays out.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def renamed(text: str) -> str:
    return re.sub(r"from kuasar_agent import ttrpc", "import ttrpc", text).replace(
        "kuasar_agent.ttrpc", "ttrpc"
    )


def test_the_agent_is_not_needed(python: Path, tmp_path: Path) -> None:
    code = "import importlib.util as util; print(util.find_spec('kuasar_agent'))"
    assert run(python, "-c", code, cwd=tmp_path) == "None\n"


def test_the_example_of_the_protocol_page_runs(python: Path, tmp_path: Path) -> None:
    (example,) = re.findall(
        r"```python\n(.*?)```", (PACKAGE / "PROTOCOL.md").read_text(), re.DOTALL
    )
    output = run(python, "-c", renamed(example), cwd=tmp_path)
    assert output == "hello world, from /example.Greeter/SayHello\n"


def test_the_plugin_of_protoc_is_a_command(python: Path, tmp_path: Path) -> None:
    assert run(python.with_name("protoc-gen-ttrpc"), cwd=tmp_path) == "\x10\x01"


def test_its_unit_tests_pass(python: Path, tmp_path: Path) -> None:
    here = Path(__file__).parent
    support = sorted((ROOT / "tests" / "support" / "ttrpc").glob("*.py"))
    for path in (*support, here / "conftest.py", *(here / name for name in TESTS)):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(renamed(path.read_text()))
    # Without these, pytest would put tests/unit on the path, where the name ttrpc is taken.
    for package in ("tests", "tests/support", "tests/unit", "tests/unit/ttrpc"):
        (tmp_path / package / "__init__.py").touch()
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path)
    output = run(python, *arguments, tmp_path / "tests" / "unit", cwd=tmp_path)
    assert re.search(r"^\d{2} passed", output, re.MULTILINE), output
