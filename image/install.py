"""Install an image for Kuasar: `python -m image.install --image build/image --destdir ''`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from image.artefacts import ARTEFACTS
from image.errors import BuildError, explain
from image.files import replacing, run, sha256_of

DIRECTORY = "var/lib/kuasar"
KERNEL = "vmlinux"
KERNEL_IN_KUASAR_CONFIG = "vmlinux.bin"
KEPT = ".orig"


def install(image: Path, destination: Path) -> Iterator[str]:
    """Copy the artefacts and yield a line about each file.

    A running microVM keeps the file that it has open. The first file of a name, such as the image
    of vmm-task, is kept beside it as NAME.orig.
    """
    directory = destination / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    names = {name: name for name in ARTEFACTS} | {KERNEL_IN_KUASAR_CONFIG: KERNEL}
    for name, source_name in names.items():
        source, target = image / source_name, directory / name
        if not source.exists():
            continue
        if target.exists() and sha256_of(target) == sha256_of(source):
            yield f"{target}: unchanged"
            continue
        with replacing(target) as place:
            run(["cp", "--sparse=always", source, place])
            kept = target.with_name(name + KEPT)
            if target.exists() and not kept.exists():
                os.link(target, kept)
                yield f"{kept}: the former {name}"
        yield f"{target}: {source.stat().st_size / 1e6:.1f} MB"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m image.install", description=__doc__)
    parser.add_argument("--image", type=Path, required=True, help="directory of the built image")
    parser.add_argument("--destdir", default="", help="put before /var/lib/kuasar")
    options = parser.parse_args()
    try:
        for line in install(options.image, Path(options.destdir or "/")):
            print(line)
    except (BuildError, OSError) as error:
        print(explain(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
