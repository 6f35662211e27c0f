"""The guest's root in three layers: userland, kernel modules, agent.

Each is a compressed archive, cached by its inputs; an initrd is the layers one after the other. A
change of the agent rebuilds only the last layer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image import cpio, userland
from image.chroot import unpacked
from image.contents import FLAVOURS, SITE_PACKAGES
from image.files import Cache, progress, run, sha256, sha256_of
from image.imports import imported
from image.packages import Apt, Deb
from image.tree import Tree

SEGMENT = "layer.cpio.zst"
ABOUT = "about.json"
# Level 19 is a tenth smaller but takes a third longer to unpack, in every guest, and ten times as
# long to pack.
ZSTD = ("zstd", "-q", "-12", "--no-check", "-T1", "-c")
AGENT = Path(__file__).parent.parent / "kuasar_agent"
TRACING = ("observe/otlp.py", "observe/tracing.py")
"""The agent's modules that import OpenTelemetry: the image lacks both, `image.tracing` has both."""
# ttrpc's generator needs protobuf's compiler messages; typed stubs are for type checkers.
_TTRPC = ("ttrpc/generate.py", "ttrpc/setup.cfg", "ttrpc/pyproject.toml", "*_ttrpc.py")
AGENT_OMISSIONS = ("*.pyc", "*.pyi", "*.md", "py.typed", *_TTRPC, *TRACING)


@dataclass(frozen=True)
class Layer:
    """A finished layer: its directory in the cache, and its part of the manifest."""

    directory: Path
    about: dict[str, Any]

    @property
    def segment(self) -> Path:
        return self.directory / SEGMENT

    def archive(self) -> bytes:
        """Return the uncompressed archive."""
        return run(["zstd", "-q", "-d", "-c", self.segment])

    def tree(self) -> Tree:
        """Return the files of the layer."""
        return cpio.parse(self.archive())


def make(cache: Cache, kind: str, inputs: Iterable[str], build: Callable[[Path], Any]) -> Layer:
    """Return the cached layer of equal inputs, else the one that `build` writes to a directory."""
    key = hashlib.sha256("\n".join([_recipe(), *inputs]).encode()).hexdigest()[:32]

    def fill(work: Path) -> None:
        about = build(work)
        (work / ABOUT).write_text(json.dumps(about))

    directory = cache.entry(kind, key, fill)
    return Layer(directory, json.loads((directory / ABOUT).read_text()))


def compressor() -> str:
    """Return the command that compresses the layers, with its version."""
    version = run(["zstd", "--version"]).decode().strip()
    return f"{' '.join(ZSTD)} ({version})"


def _recipe() -> str:
    """Return the inputs of every layer: the sources of this package and the compressor."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return "\n".join([*map(sha256_of, sources), compressor()])


def write(work: Path, tree: Tree) -> dict[str, Any]:
    """Write the archive to a layer's directory and return the sizes for the manifest."""
    archive = cpio.archive(tree)
    (work / SEGMENT).write_bytes(run([*ZSTD, f"--stream-size={len(archive)}"], stdin=archive))
    return {"sizes": tree.sizes()}


def userland_layer(cache: Cache, apt: Apt, wheels: Sequence[Path], flavour: str) -> Layer:
    """Return the layer of Python with its libraries and wheels and the programs of the flavour."""
    packages = FLAVOURS[flavour]
    debs = apt.obtain([package.name for package in packages])

    def build(work: Path) -> dict[str, Any]:
        paths = {deb.name: apt.path(deb) for deb in debs}
        tree, saved = userland.build(packages, paths, wheels)
        return {**write(work, tree), "packages": listed(debs), "saved": saved}

    return make(cache, "userland", [*hashes(debs), *map(sha256_of, wheels)], build)


def agent_layer(cache: Cache, base: Layer) -> Layer:
    """Return the layer of this checkout's agent, compiled, after trying its imports."""
    tree = Tree()
    for path in sorted(AGENT.rglob("*")):
        if path.is_file() and not any(path.match(pattern) for pattern in AGENT_OMISSIONS):
            place = f"{SITE_PACKAGES}/{path.relative_to(AGENT.parent)}"
            tree.file(place, path.read_bytes(), group="agent")
    inputs = [f"{path} {sha256(node.data)}" for path, node in tree.files()]

    def build(work: Path) -> dict[str, Any]:
        progress("compiling the agent")
        names: set[str] = set()
        for path, node in tree.files():
            if path.endswith(".py"):
                names |= {_module(path), *imported(node.data)}
        with unpacked(base.tree(), tree) as chroot:
            chroot.compile(tree, docstrings=True)
            chroot.check_imports(sorted(names))
        return write(work, tree)

    return make(cache, "agent", [base.directory.name, *inputs], build)


def _module(path: str) -> str:
    name = path.removeprefix(f"{SITE_PACKAGES}/").removesuffix(".py").replace("/", ".")
    # Importing __main__ would run the program.
    return name.removesuffix(".__init__").removesuffix(".__main__")


def hashes(debs: Iterable[Deb]) -> list[str]:
    """Return name and hash of each package, as inputs of a layer."""
    return [f"{deb.name} {deb.sha256}" for deb in debs]


def listed(debs: Iterable[Deb]) -> list[dict[str, str]]:
    """Return the packages as the manifest lists them."""
    return [{"name": deb.name, "version": deb.version, "sha256": deb.sha256} for deb in debs]
