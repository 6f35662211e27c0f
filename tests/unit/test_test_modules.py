"""Which test code may import which: helpers are in tests/support, and unit tests need no root."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
# Each starts agents, microVMs, namespaces or devices, which takes root.
AS_ROOT = frozenset(
    f"tests.support.{name}"
    for name in ("agent", "debug_agent", "guest", "isolation", "links", "shim", "storages")
)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(TESTS.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(TESTS.rglob("*.py"))}


@cache
def imported(module: str) -> frozenset[str]:
    """Return the modules of the tests that a module imports, late imports included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found.update(each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found.update(f"{node.module}.{each.name}" for each in node.names)
            found.add(str(node.module))
    return frozenset(found & MODULES.keys())


def reached(module: str, seen: set[str]) -> set[str]:
    """Return `seen` with the module and all that it imports, directly or not."""
    if module not in seen:
        seen.add(module)
        for name in imported(module):
            reached(name, seen)
    return seen


def is_test(module: str) -> bool:
    last = module.rpartition(".")[2]
    return last.startswith("test_") or last == "conftest"


def test_no_module_imports_from_a_test_module() -> None:
    found = {(module, name) for module in MODULES for name in imported(module) if is_test(name)}
    assert found == set()


def test_unit_tests_import_no_helper_that_needs_root() -> None:
    assert MODULES.keys() >= AS_ROOT
    unit = [name for name in MODULES if name.startswith(("tests.unit.", "tests.fuzz."))]
    found = {name: sorted(reached(name, set()) & AS_ROOT) for name in unit}
    assert {name: helpers for name, helpers in found.items() if helpers} == {}
