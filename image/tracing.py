"""The packages that tracing needs, as an archive to boot in front of the image.

    python -m image.tracing build/tracing.cpio
    kuasar-debug boot --initrd build/tracing.cpio --initrd build/image/kuasar.initrd …

The image itself goes without: OpenTelemetry's SDK is as large as the agent, and most guests are
never traced. It is taken from the environment that runs this (`kuasar-agent[tracing]`).
"""

from __future__ import annotations

import argparse
import py_compile
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from image.contents import SITE_PACKAGES
from image.cpio import archive
from image.errors import BuildError
from image.layers import AGENT, TRACING
from image.tree import Tree

ROOTS = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-common")
_IN_IMAGE = ("protobuf",)
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def build() -> Tree:
    """Return the compiled modules, and the entry points by which OpenTelemetry finds its parts.

    Raises:
        BuildError: the extra is not installed.
    """
    tree = Tree()
    with tempfile.TemporaryDirectory() as scratch:
        for path, source in _sources():
            place = f"{SITE_PACKAGES}/{path}"
            if source.suffix == ".py":
                compiled = Path(scratch) / "module.pyc"
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(
                    str(source), str(compiled), f"/{place}", doraise=True, invalidation_mode=mode
                )
                tree.file(f"{place}c", compiled.read_bytes(), group="tracing")
            else:
                tree.file(place, source.read_bytes(), group="tracing")
    return tree


def _sources() -> Iterator[tuple[str, Path]]:
    for name in TRACING:
        yield f"kuasar_agent/{name}", AGENT / name
    for package in sorted(_packages()):
        for path in distribution(package).files or ():
            if path.suffix == ".py" or path.name in ("METADATA", "entry_points.txt"):
                yield str(path), Path(str(path.locate()))


def _packages() -> set[str]:
    """Return the names of the root packages and of all that they require, without extras."""
    found: set[str] = set()
    todo = list(ROOTS)
    while todo:
        name = todo.pop().replace("_", "-").lower()
        if name in found or name in _IN_IMAGE:
            continue
        found.add(name)
        try:
            required = distribution(name).requires or []
        except PackageNotFoundError:
            raise BuildError(f"{name} is not installed (kuasar-agent[tracing])") from None
        for requirement in required:
            match = _NAME.match(requirement)
            if match is not None and "extra ==" not in requirement:
                todo.append(match[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the archive that lets a guest trace.")
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    try:
        output.write_bytes(archive(build()))
    except BuildError as error:
        sys.exit(f"image: {error}")


if __name__ == "__main__":
    main()
