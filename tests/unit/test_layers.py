"""Imports run downward through the layers of docs/layers.toml, and in no circle."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Container, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = tomllib.loads((ROOT / "docs/layers.toml").read_text())
PACKAGES = {"guest": [ROOT / "kuasar_agent"], "host": sorted((ROOT / "debug").glob("kuasar_*"))}


@cache
def modules(side: str) -> dict[str, ast.Module]:
    """Return the syntax tree of every module of a side by the module's name."""
    found = {}
    for package in PACKAGES[side]:
        for path in package.rglob("*.py"):
            name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module, known: Container[str]) -> Iterator[str]:
    """Yield the known modules that a module imports, below TYPE_CHECKING and in functions too."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from filter(None, (longest_prefix(name, known) for name in names))


def longest_prefix(name: str, known: Container[str]) -> str:
    """Return the longest head of a dotted name that is known, or an empty string."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def ranks(side: str) -> dict[str, int]:
    """Return the number of each part's layer; what the side may use of the other is below all."""
    below = dict.fromkeys(LAYERS[side].get("uses", ()), -1)
    layers = enumerate(LAYERS[side]["layer"])
    return below | {part: rank for rank, layer in layers for part in layer["parts"]}


@pytest.mark.parametrize("side", LAYERS)
def test_no_import_goes_up_or_aside(side: str) -> None:
    rank, everything = ranks(side), {**modules("guest"), **modules("host")}
    wrong = []
    for name, tree in modules(side).items():
        part = longest_prefix(name, rank)
        # The version is all that stands in the package `kuasar_agent` itself.
        for target in imports(tree, everything.keys() - {"kuasar_agent"}):
            used = longest_prefix(target, rank)
            if used != part and not rank.get(used, 99) < rank.get(part, -9):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


@pytest.mark.parametrize("side", LAYERS)
def test_no_imports_form_a_circle(side: str) -> None:
    found = modules(side)
    graph = {name: {*imports(tree, found)} - {name} for name, tree in found.items()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("side", LAYERS)
def test_every_module_is_in_a_layer_and_every_part_exists(side: str) -> None:
    rank, found = ranks(side), modules(side)
    assert [
        name for name in found.keys() - {"kuasar_agent"} if not longest_prefix(name, rank)
    ] == []
    assert rank.keys() - {**modules("guest"), **found}.keys() == set()
