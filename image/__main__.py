"""Build the guest image: `python -m image --output build/image`, as root on Debian 12."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from image import layers, wheels
from image.errors import BuildError
from image.files import Cache, cache_directory, replacing
from image.manifest import manifest, sizes, table
from image.packages import Apt

MANIFEST = "manifest.json"


def build(output: Path, cache_root: Path) -> str:
    """Write kuasar.initrd, vmlinux and, last, manifest.json; return the sizes table."""
    if os.geteuid() != 0:
        raise BuildError("building needs root: the guest's Python is run in a chroot")
    cache = Cache(cache_root)
    apt = Apt(cache_root / "debs")
    wheel_files = wheels.fetch(cache)
    userland = layers.userland_layer(cache, apt, wheel_files)
    kernel = layers.kernel_layer(cache, apt)
    agent = layers.agent_layer(cache, userland)

    output.mkdir(parents=True, exist_ok=True)
    # Where there is a manifest, it describes what lies beside it.
    (output / MANIFEST).unlink(missing_ok=True)
    initrd, vmlinux = output / "kuasar.initrd", output / "vmlinux"
    with replacing(initrd) as place:
        layers.join([userland, kernel, agent], place)
    with replacing(vmlinux) as place:
        shutil.copyfile(kernel.directory / layers.VMLINUX, place)
    outputs = [initrd, vmlinux]
    about = manifest(userland, kernel, agent, wheel_files, outputs)
    with replacing(output / MANIFEST) as place:
        place.write_text(json.dumps(about, indent=1) + "\n")
    named = {"userland": userland, "kernel modules": kernel, "agent": agent}
    return table(sizes(list(named.values())), named, outputs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m image", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="directory for the results")
    parser.add_argument(
        "--cache", type=Path, default=cache_directory(), help="default: %(default)s"
    )
    options = parser.parse_args()
    try:
        print(build(options.output, options.cache))
    except BuildError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = error.filename2 or error.filename or "a file"
        print(f"image: {place}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
