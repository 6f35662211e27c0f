"""Build the guest image: `python -m image --output build/image`, as root on Debian 12."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from image import artefacts, layers, wheels
from image.artefacts import ARTEFACTS, MANIFEST, Layers
from image.contents import FLAVOURS
from image.errors import BuildError, explain
from image.files import Cache, cache_directory, replacing
from image.kernels import KERNELS
from image.manifest import manifest, table
from image.packages import Apt


def build(
    output: Path,
    cache_root: Path,
    names: Sequence[str] = tuple(ARTEFACTS),
    *,
    flavour: str = "default",
    kernel: str = "debian",
) -> str:
    """Write the artefacts of these names and, last, manifest.json; return the sizes table."""
    if os.geteuid() != 0:
        raise BuildError("building needs root: the guest's Python is run in a chroot")
    cache = Cache(cache_root)
    apt = Apt(cache_root / "debs")
    wheel_files = wheels.fetch(cache)
    userland = layers.userland_layer(cache, apt, wheel_files, flavour)
    parts = Layers(userland, KERNELS[kernel](cache, apt), layers.agent_layer(cache, userland))
    outputs = artefacts.write(artefacts.wanted(names, parts), parts, cache, output)
    about = manifest(parts, flavour, wheel_files, outputs)
    with replacing(output / MANIFEST) as place:
        place.write_text(json.dumps(about, indent=1) + "\n")
    return table(parts, outputs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m image", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="directory for the results")
    parser.add_argument(
        "--cache", type=Path, default=cache_directory(), help="default: %(default)s"
    )
    parser.add_argument("--flavour", choices=FLAVOURS, default="default")
    parser.add_argument("--kernel", choices=KERNELS, default="debian", help="own is compiled")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"what to write, default all: {', '.join(ARTEFACTS)}",
    )
    options = parser.parse_args()
    unknown = set(options.names) - ARTEFACTS.keys()
    if unknown:
        parser.error(f"there is no {' '.join(sorted(unknown))}")
    names = options.names or list(ARTEFACTS)
    try:
        kinds = {"flavour": options.flavour, "kernel": options.kernel}
        print(build(options.output, options.cache, names, **kinds))
    except (BuildError, OSError) as error:
        print(explain(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
