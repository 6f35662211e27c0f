"""Imports run downward through the layers of docs/layers.toml, and in no circle."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Container, Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = tomllib.loads((ROOT / "docs/layers.toml").read_text())
PACKAGES = {"guest": [ROOT / "kuasar_agent"], "host": sorted((ROOT / "debug").glob("kuasar_*"))}


class Module(NamedTuple):
    """A module's package, which relative imports start from, and its syntax tree."""

    package: str
    tree: ast.Module


@cache
def modules(side: str) -> dict[str, Module]:
    """Return every module of a side by its name."""
    found = {}
    for top in PACKAGES[side]:
        for path in top.rglob("*.py"):
            package = ".".join(path.relative_to(top.parent).parent.parts)
            name = package if path.stem == "__init__" else f"{package}.{path.stem}"
            found[name] = Module(package, ast.parse(path.read_text()))
    return found


def imports(module: Module, known: Container[str]) -> Iterator[str]:
    """Yield the known modules that a module imports, below TYPE_CHECKING and in functions too."""
    for node in ast.walk(module.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), module.package)
            names = [f"{source}.{alias.name}" for alias in node.names]
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
    for name, module in modules(side).items():
        part = longest_prefix(name, rank)
        # The version is all that stands in the package `kuasar_agent` itself.
        for target in imports(module, everything.keys() - {"kuasar_agent"}):
            used = longest_prefix(target, rank)
            if used != part and not rank.get(used, 99) < rank.get(part, -9):
                wrong.append(f"{name} imports {target}")
    assert wrong == []


@pytest.mark.parametrize("side", LAYERS)
def test_no_imports_form_a_circle(side: str) -> None:
    found = modules(side)
    graph = {name: {*imports(module, found)} - {name} for name, module in found.items()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("side", LAYERS)
def test_every_module_is_in_a_layer_and_every_part_exists(side: str) -> None:
    rank, found = ranks(side), modules(side)
    assert [
        name for name in found.keys() - {"kuasar_agent"} if not longest_prefix(name, rank)
    ] == []
    assert rank.keys() - {**modules("guest"), **found}.keys() == set()


def test_the_picture_of_the_layers_is_drawn_from_them() -> None:
    drawn = subprocess.run(
        [sys.executable, ROOT / "docs/architecture.py"], capture_output=True, text=True, check=True
    )
    assert drawn.stdout == (ROOT / "docs/architecture.svg").read_text()
