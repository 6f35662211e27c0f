"""Every class that keeps descriptors as numbers names them to the leak report."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import kuasar_agent

PACKAGE = Path(kuasar_agent.__file__).parent
CALLS = {"open", "pipe", "pipe2", "dup", "eventfd", "openpty", "memfd_create", "pidfd_open"}


def owners() -> Iterator[type]:
    """Yield the classes that open or close descriptors by number; ttrpc keeps sockets only."""
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        if not name.startswith("kuasar_agent.ttrpc."):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and any(map(is_owned, ast.walk(node))):
                    yield getattr(import_module(name), node.name)


def is_owned(node: ast.AST) -> bool:
    """Return whether a node calls a function of `os` that opens or closes a descriptor."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "os"
        and node.func.attr in CALLS | {"close"}
    )


def test_every_owner_of_descriptors_names_them() -> None:
    found = set(owners())
    assert len(found) >= 5
    assert {owner for owner in found if not hasattr(owner, "descriptors")} == set()
