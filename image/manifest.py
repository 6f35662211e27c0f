"""The contents and sizes of an image: manifest.json, and the table that a build prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from image.artefacts import Layers
from image.contents import FLAVOURS
from image.files import sha256_of
from image.layers import Layer, compressor
from image.modules import LEFT_OUT, LISTS, ON_DEMAND, ROOT


def manifest(
    layers: Layers, flavour: str, wheels: Sequence[Path], outputs: Sequence[Path]
) -> dict[str, Any]:
    """Describe an image; it holds no time and no path, so equal images have equal manifests."""
    reasons = {package.name: package.reason for package in FLAVOURS[flavour]}
    kernel = layers.kernel.about
    return {
        "flavour": flavour,
        "kernel": {"release": kernel["release"], **kernel["packages"][0]},
        "packages": [
            {**package, "for": reasons[package["name"]]}
            for package in layers.userland.about["packages"]
        ],
        "wheels": [{"file": wheel.name, "sha256": sha256_of(wheel)} for wheel in wheels],
        "modules": {
            name: {
                "files": kernel["modules"][name],
                "for": {" ".join(wanted.names): wanted.reason for wanted in group},
            }
            for name, group in {**LISTS, "on demand": ON_DEMAND, "root": ROOT}.items()
            if name in kernel["modules"]
        },
        "left out": layers.userland.about["saved"],
        "python": "modules are compiled; all but the agent's have no docstrings",
        "modules left out": dict(LEFT_OUT) if kernel["modules"] else {},
        "compression": compressor(),
        "sizes": sizes(layers),
        "outputs": {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in outputs
        },
    }


def sizes(layers: Iterable[Layer]) -> dict[str, int]:
    """Return the uncompressed bytes per group, the largest first."""
    totals: dict[str, int] = {}
    for layer in layers:
        for group, size in layer.about["sizes"].items():
            totals[group] = totals.get(group, 0) + size
    return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


def table(layers: Layers, outputs: Sequence[Path]) -> str:
    """Return the table of sizes in MB (10⁶ bytes); holes of the disk do not count."""
    raw = sizes(layers)
    rows = [("uncompressed", "")]
    rows += [(f"  {group}", _megabytes(size)) for group, size in raw.items()]
    rows += [("  all", _megabytes(sum(raw.values()))), ("compressed", "")]
    for name, layer in layers._asdict().items():
        rows.append((f"  {name}", _megabytes(layer.segment.stat().st_size)))
    rows += [(path.name, _megabytes(path.stat().st_size)) for path in outputs]
    return "\n".join(f"{name:<22}{size:>8}".rstrip() for name, size in rows)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f}"
