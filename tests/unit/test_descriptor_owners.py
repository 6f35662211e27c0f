"""Every class that keeps descriptors as numbers names them to the leak report."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import kuasar_agent

PACKAGE = Path(kuasar_agent.__file__).parent
OPENS = ("open", "pipe", "pipe2", "dup", "eventfd", "openpty", "memfd_create", "pidfd_open")


def owners() -> Iterator[type]:
    """Yield the classes that keep or close a descriptor; those of ttrpc keep sockets only."""
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        if not name.startswith("kuasar_agent.ttrpc."):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and any(keeps_or_closes(node)):
                    yield getattr(import_module(name), node.name)


def keeps_or_closes(owner: ast.ClassDef) -> Iterator[bool]:
    """Yield True for a new descriptor that is not handed on at once, and for one that is closed."""
    calls = [node for node in ast.walk(owner) if isinstance(node, ast.Call)]
    handed_on = [argument for call in calls for argument in call.args]
    for call in calls:
        function = ast.unparse(call.func)
        if function == "os.close":
            yield not isinstance(call.args[0], ast.Call)
        else:
            yield function in {f"os.{name}" for name in OPENS} and call not in handed_on


def test_every_owner_of_descriptors_names_them() -> None:
    found = set(owners())
    assert len(found) >= 5
    assert {owner for owner in found if not hasattr(owner, "descriptors")} == set()
