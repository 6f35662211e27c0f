"""A tree unpacked on disk, in which the guest's own programs run.

Running them there is the proof that libraries are complete and that modules can be imported."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from image.contents import PYTHON, SITE_PACKAGES
from image.errors import BuildError
from image.files import run
from image.tree import Tree

# A fixed seed: the bytes that marshal writes must not depend on the order of a set.
ENVIRONMENT = {"PATH": "/usr/bin:/usr/sbin", "LC_ALL": "C", "PYTHONHASHSEED": "0"}
_COMPILE = Path(__file__).with_name("guest_compile.py")
_IMPORT = """
import importlib, json, sys
sys.path.append(sys.argv[1])
failed = {}
for name in json.load(sys.stdin):
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed[name] = f"{type(error).__name__}: {error}"
print(json.dumps(failed))
"""


class Chroot:
    """A directory that is the root directory of the programs run in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, stdin: bytes = b"") -> bytes:
        """Run a program to its end and return its output. Raises BuildError when it fails."""
        try:
            return run(["chroot", self.root, *command], env=ENVIRONMENT, stdin=stdin)
        except BuildError as error:
            raise BuildError(f"in the guest's tree: {command[0]}: {error}") from None

    def compile(self, tree: Tree, *, docstrings: bool) -> None:
        """Replace each Python source of the tree by its compiled module."""
        sources = [path for path, _ in tree.files() if path.endswith(".py")]
        listing = "".join(f"/{path}\n" for path in sources)
        options = () if docstrings else ("--no-docstrings",)
        script = _COMPILE.read_text()
        self.run(f"/{PYTHON}", "-PsS", "-c", script, *options, stdin=listing.encode())
        for path in sources:
            source = tree.remove(path)
            (self.root / path).unlink()
            compiled = (self.root / f"{path}c").read_bytes()
            tree.file(f"{path}c", compiled, group=source.group)

    def check_imports(self, names: Sequence[str]) -> None:
        """Import each module with the search path of the guest's init.

        Raises:
            BuildError: a module cannot be imported.
        """
        output = self.run(
            *(f"/{PYTHON}", "-IS", "-c", _IMPORT, f"/{SITE_PACKAGES}"),
            stdin=json.dumps(list(names)).encode(),
        )
        for name, error in json.loads(output).items():
            raise BuildError(f"the guest cannot import {name}: {error}")


@contextmanager
def unpacked(*trees: Tree) -> Iterator[Chroot]:
    """Unpack the union of the trees in a temporary directory; chroot takes root."""
    whole = Tree()
    for tree in trees:
        whole.update(tree)
    with tempfile.TemporaryDirectory(prefix="kuasar-image-") as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        whole.write_to(root)
        yield Chroot(root)
