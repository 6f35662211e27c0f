"""The package imports nothing else of the agent; test_distribution publishes it by itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from kuasar_agent import ttrpc

PACKAGE = Path(ttrpc.__file__).parent
MODULES = sorted(PACKAGE.glob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_module_imports_nothing_of_the_agent(module: Path) -> None:
    """Late imports included, which a run might never reach."""
    imported: list[str] = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            imported += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1
            if not node.level:
                imported.append(str(node.module))
    assert [name for name in imported if name.startswith("kuasar_")] == []
