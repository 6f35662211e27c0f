"""The kernel's layer, Debian's or one built from source: its modules, and vmlinux beside them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from image import compilation, kernel, modules
from image.contents import KERNEL_PACKAGE, KERNEL_SOURCE_PACKAGE
from image.files import Cache, progress, run, sha256_of
from image.layers import Layer, hashes, listed, make, write
from image.packages import Apt
from image.tree import Tree

VMLINUX = "vmlinux"


def debian(cache: Cache, apt: Apt) -> Layer:
    """Return the layer of Debian's kernel, with the modules that a guest may need."""
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
        about = {"packages": listed(debs), "release": release, "modules": lists}
        return {**write(work, tree), **about}

    return make(cache, "kernel", hashes(debs), build)


def own(cache: Cache, apt: Apt) -> Layer:
    """Return the layer of the kernel of image/kernel.config, which has no modules."""
    debs = apt.obtain([KERNEL_SOURCE_PACKAGE])
    # Not part of the layer: a change elsewhere in this package must not compile it again.
    inputs = [*hashes(debs), sha256_of(compilation.CONFIG), *compilation.recipe()]
    key = hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:32]
    compiled = cache.entry("vmlinux", key, lambda work: compilation.build(apt.path(debs[0]), work))

    def build(work: Path) -> dict[str, Any]:
        image = kernel.checked((compiled / VMLINUX).read_bytes())
        (work / VMLINUX).write_bytes(image)
        release = (compiled / compilation.RELEASE).read_text()
        about = {"packages": listed(debs), "release": release, "modules": {}}
        return {**write(work, Tree()), **about}

    return make(cache, "kernel", inputs, build)


KERNELS: dict[str, Callable[[Cache, Apt], Layer]] = {"debian": debian, "own": own}
