"""The modules that a source imports, in late imports too.

Without this check an omission from the image would show only when a container needs the module."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def imported(source: bytes) -> set[str]:
    """Return the absolute names of the modules that a source must be able to import.

    Imports for type checkers, and those whose failure is caught, are left out: they may fail.
    """
    return set(_names(ast.parse(source)))


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield node.module
    for child in _required(node):
        yield from _names(child)


def _required(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If) and _mentions(node.test, {"TYPE_CHECKING"}):
        yield from node.orelse
    elif isinstance(node, ast.Try) and any(
        handler.type is not None and _mentions(handler.type, {"ImportError", "ModuleNotFoundError"})
        for handler in node.handlers
    ):
        yield from (*node.handlers, *node.orelse, *node.finalbody)
    else:
        yield from ast.iter_child_nodes(node)


def _mentions(expression: ast.expr, names: set[str]) -> bool:
    return any(
        (isinstance(node, ast.Name) and node.id in names)
        or (isinstance(node, ast.Attribute) and node.attr in names)
        for node in ast.walk(expression)
    )
