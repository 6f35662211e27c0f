"""The initrd's three layers. Each is an archive of its own, compressed and cached by what went
into it; the kernel unpacks them one after the other. A change in the agent rebuilds the last one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image import cpio, kernel, modules, userland
from image.chroot import unpacked
from image.contents import KERNEL_PACKAGE, PACKAGES, SITE_PACKAGES
from image.files import Cache, progress, run, sha256, sha256_of
from image.imports import imported
from image.packages import Apt, Deb
from image.tree import Tree

SEGMENT = "layer.cpio.zst"
ABOUT = "about.json"
VMLINUX = "vmlinux"
# Level 19 is a tenth smaller but takes a third longer to unpack, in every guest, and ten times as
# long to pack.
ZSTD = ("zstd", "-q", "-12", "--no-check", "-T1", "-c")
AGENT = Path(__file__).parent.parent / "kuasar_agent"
TRACING = ("observe/otlp.py", "observe/tracing.py")
"""Import OpenTelemetry, which the image lacks; `image.tracing` brings both."""
AGENT_OMISSIONS = ("*.pyc", "*.pyi", "*.md", "py.typed", *TRACING)


@dataclass(frozen=True)
class Layer:
    """A finished layer: its directory in the cache and what the manifest says about it."""

    directory: Path
    about: dict[str, Any]

    @property
    def segment(self) -> Path:
        return self.directory / SEGMENT

    def tree(self) -> Tree:
        return cpio.parse(run(["zstd", "-q", "-d", "-c", self.segment]))


def _layer(cache: Cache, kind: str, inputs: Iterable[str], build: Callable[[Path], Any]) -> Layer:
    key = hashlib.sha256("\n".join([_recipe(), *inputs]).encode()).hexdigest()[:32]

    def fill(work: Path) -> None:
        about = build(work)
        (work / ABOUT).write_text(json.dumps(about))

    directory = cache.entry(kind, key, fill)
    return Layer(directory, json.loads((directory / ABOUT).read_text()))


def compressor() -> str:
    """The command that compresses the layers, and its version."""
    version = run(["zstd", "--version"]).decode().strip()
    return f"{' '.join(ZSTD)} ({version})"


def _recipe() -> str:
    """What every layer depends on besides its inputs: this package and the compressor."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return "\n".join([*map(sha256_of, sources), compressor()])


def _write(work: Path, tree: Tree) -> dict[str, Any]:
    archive = cpio.archive(tree)
    (work / SEGMENT).write_bytes(run([*ZSTD, f"--stream-size={len(archive)}"], stdin=archive))
    return {"sizes": tree.sizes()}


def userland_layer(cache: Cache, apt: Apt, wheels: Sequence[Path]) -> Layer:
    """Python, its libraries and wheels, crun, bash, busybox."""
    debs = apt.obtain([package.name for package in PACKAGES])

    def build(work: Path) -> dict[str, Any]:
        paths = {deb.name: apt.path(deb) for deb in debs}
        tree, saved = userland.build(paths, wheels)
        return {**_write(work, tree), "packages": _listed(debs), "saved": saved}

    return _layer(cache, "userland", [*_hashes(debs), *map(sha256_of, wheels)], build)


def kernel_layer(cache: Cache, apt: Apt) -> Layer:
    """vmlinux, and the modules that go with it."""
    name = apt.dependency(KERNEL_PACKAGE, r"linux-image-\d\S*")
    debs = apt.obtain([name])
    release = name.removeprefix("linux-image-")

    def build(work: Path) -> dict[str, Any]:
        progress(f"unpacking the kernel {release}")
        with tempfile.TemporaryDirectory(dir=work.parent) as scratch:
            root = Path(scratch)
            run(["dpkg-deb", "-x", apt.path(debs[0]), root])
            bzimage = (root / "boot" / f"vmlinuz-{release}").read_bytes()
            (work / VMLINUX).write_bytes(kernel.vmlinux(bzimage))
            tree, lists = modules.chosen(root, release)
        about = {"packages": _listed(debs), "release": release, "modules": lists}
        return {**_write(work, tree), **about}

    return _layer(cache, "kernel", _hashes(debs), build)


def agent_layer(cache: Cache, base: Layer) -> Layer:
    """The agent of this checkout, compiled; it and all that it imports tried in the whole tree."""
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
        return _write(work, tree)

    return _layer(cache, "agent", [base.directory.name, *inputs], build)


def _module(path: str) -> str:
    name = path.removeprefix(f"{SITE_PACKAGES}/").removesuffix(".py").replace("/", ".")
    # Importing __main__ would run the program.
    return name.removesuffix(".__init__").removesuffix(".__main__")


def _hashes(debs: Iterable[Deb]) -> list[str]:
    return [f"{deb.name} {deb.sha256}" for deb in debs]


def _listed(debs: Iterable[Deb]) -> list[dict[str, str]]:
    return [{"name": deb.name, "version": deb.version, "sha256": deb.sha256} for deb in debs]


def join(layers: Sequence[Layer], place: Path) -> None:
    """Write the layers one after the other."""
    with place.open("wb") as output:
        for layer in layers:
            with layer.segment.open("rb") as segment:
                shutil.copyfileobj(segment, output)
