"""The package's metadata against what it describes."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
# Written into every module by protoc.
_GENCODE = re.compile(r"^# Protobuf Python Version: (\S+)$", re.MULTILINE)


def requirements() -> dict[str, Requirement]:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    return {each.name: each for each in map(Requirement, filter(None, lines))}


def test_protobuf_is_bounded_by_the_generated_modules() -> None:
    # https://protobuf.dev/support/cross-version-runtime-guarantee/
    modules = (ROOT / "kuasar_agent").rglob("*_pb2.py")
    found = {version for module in modules for version in _GENCODE.findall(module.read_text())}
    (generated,) = map(Version, found)
    expected = Requirement(f"protobuf >= {generated}, < {generated.major + 2}")
    assert requirements()["protobuf"].specifier == expected.specifier


def test_every_dependency_has_a_lower_bound_that_the_guests_pin_satisfies() -> None:
    text = (ROOT / "image" / "requirements.txt").read_text()
    pins = dict(re.findall(r"^(\S+)==(\S+) ", text, re.MULTILINE))
    for name, requirement in requirements().items():
        assert [each for each in requirement.specifier if each.operator == ">="], name
        assert requirement.specifier.contains(pins[name]), name
