"""Compile modules; run by the guest's own interpreter inside a chroot of the guest's tree.

Reads absolute paths of sources from standard input and writes `module.pyc` beside `module.py`.
The result is marked as unchecked and hash-based (PEP 552), so that the guest needs no source;
tracebacks show the path in the guest. The argument `--no-docstrings` removes docstrings; asserts
stay.
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
import sys
from pathlib import Path

UNCHECKED_HASH = (1).to_bytes(4, "little")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def without_docstrings(module: ast.Module) -> ast.Module:
    """Remove every docstring from a module and return it."""
    for node in ast.walk(module):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            nothing = ast.copy_location(ast.Pass(), node.body[0])
            node.body[:1] = [] if len(node.body) > 1 else [nothing]
    return module


def compiled(source: bytes, path: str, *, docstrings: bool) -> bytes:
    """Return the content of the .pyc file."""
    module = ast.parse(source, path)
    if not docstrings:
        module = without_docstrings(module)
    code = compile(module, path, "exec", dont_inherit=True)
    header = importlib.util.MAGIC_NUMBER + UNCHECKED_HASH + importlib.util.source_hash(source)
    return header + marshal.dumps(code)


def main() -> None:
    docstrings = "--no-docstrings" not in sys.argv
    for path in sys.stdin.read().splitlines():
        data = compiled(Path(path).read_bytes(), path, docstrings=docstrings)
        Path(path + "c").write_bytes(data)


if __name__ == "__main__":
    main()
