"""The fixtures are what containerd's own code writes, and Kuasar's form of them has its fields."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.host_specs import CAPTURED, KINDS, as_kuasar_writes, generate, load

# Each build takes minutes with an empty cache: one shows that the files are generated.
CHECKED = "2.1.4"


def test_the_fixtures_are_what_containerd_writes() -> None:
    assert generate(CHECKED) == load(CHECKED)


def keys(value: Any, path: str = "") -> set[str]:
    """The paths of all members, those of an array's elements under `[]`."""
    if isinstance(value, list):
        return set().union(*(keys(each, f"{path}[]") for each in value))
    if not isinstance(value, dict):
        return set()
    found = set()
    for key, member in value.items():
        found |= {f"{path}.{key}"} | keys(member, f"{path}.{key}")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_kuasars_form_has_the_fields_of_the_captured_one(kind: str) -> None:
    captured = json.loads(CAPTURED.read_text())
    written = as_kuasar_writes(load(CHECKED)[kind])
    del captured["annotations"], written["annotations"]
    missing = keys(captured) - keys(written)
    assert {path for path in missing if not path.startswith(".linux.namespaces")} == set()


def test_kuasar_writes_its_own_form_again_as_it_is() -> None:
    captured = json.loads(CAPTURED.read_text())
    assert as_kuasar_writes(captured) == captured
