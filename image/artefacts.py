"""The files of an image, each made of the finished layers and written whole or not at all."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from image import bootstrap, cpio, disk, kernels
from image.files import Cache, progress, replacing, run, sha256_of
from image.layers import ZSTD, Layer
from image.tree import Tree


class Layers(NamedTuple):
    """The layers of an image, in the order in which the kernel unpacks them."""

    userland: Layer
    kernel: Layer
    agent: Layer


def zstd_initrd(layers: Layers, _cache: Cache, place: Path) -> None:
    """Write the compressed layers one after the other."""
    _join((layer.segment for layer in layers), place)


def gzip_initrd(layers: Layers, cache: Cache, place: Path) -> None:
    """Write the layers in gzip, for kernels before 5.9, which cannot unpack zstd."""
    _join((_gzipped(cache, layer) for layer in layers), place)


def _gzipped(cache: Cache, layer: Layer) -> Path:
    def build(work: Path) -> None:
        (work / "layer.cpio.gz").write_bytes(gzip.compress(layer.archive(), mtime=0))

    return cache.entry("gzip", sha256_of(layer.segment), build) / "layer.cpio.gz"


def _join(segments: Iterable[Path], place: Path) -> None:
    with place.open("wb") as output:
        for path in segments:
            with path.open("rb") as segment:
                shutil.copyfileobj(segment, output)


def disk_image(layers: Layers, _cache: Cache, place: Path) -> None:
    """Write the layers as the root file system of a disk."""
    progress("making the disk image")
    root = Tree()
    for layer in layers:
        root.update(layer.tree())
    disk.write(root, place)


def boot_initrd(layers: Layers, _cache: Cache, place: Path) -> None:
    """Write the initrd that mounts the disk image under a kernel whose drivers are modules."""
    tree = bootstrap.tree(layers.userland, layers.kernel)
    place.write_bytes(run(ZSTD, stdin=cpio.archive(tree)))


def vmlinux(layers: Layers, _cache: Cache, place: Path) -> None:
    """Write the uncompressed kernel."""
    shutil.copyfile(layers.kernel.directory / kernels.VMLINUX, place)


ARTEFACTS: dict[str, Callable[[Layers, Cache, Path], None]] = {
    "vmlinux": vmlinux,
    "kuasar.initrd": zstd_initrd,
    "kuasar.initrd.gz": gzip_initrd,
    "kuasar.img": disk_image,
    "kuasar-boot.initrd": boot_initrd,
}
MANIFEST = "manifest.json"


def wanted(names: Iterable[str], layers: Layers) -> list[str]:
    """Return the names without kuasar-boot.initrd where the kernel has no modules to load."""
    return [
        name for name in names if name != "kuasar-boot.initrd" or layers.kernel.about["modules"]
    ]


def write(names: Iterable[str], layers: Layers, cache: Cache, output: Path) -> list[Path]:
    """Write the artefacts of these names to a directory and remove all others from it.

    Returns:
        The paths of the artefacts.
    """
    output.mkdir(parents=True, exist_ok=True)
    # A build that fails must not leave a manifest beside files that it does not describe.
    for name in (MANIFEST, *ARTEFACTS.keys() - set(names)):
        (output / name).unlink(missing_ok=True)
    paths = []
    for name in names:
        with replacing(output / name) as place:
            ARTEFACTS[name](layers, cache, place)
        paths.append(output / name)
    return paths
