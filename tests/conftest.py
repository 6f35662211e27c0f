"""Settings of every test."""

from __future__ import annotations

from pathlib import Path

import pytest

# Before any of them is imported: assertions in helpers are explained as those in tests are.
pytest.register_assert_rewrite("tests.support")

_HERE = Path(__file__).parent
_MARKS = {
    "host": ["root", "network"],
    "interop": ["root", "network"],
    "vm": ["root", "vm"],
}
"""What the tests of a folder need, beyond the packages of a unit test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the needs of its folder."""
    for item in items:
        for mark in _MARKS.get(item.path.relative_to(_HERE).parts[0], []):
            item.add_marker(mark)
