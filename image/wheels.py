"""The agent's dependencies from the package index: pinned by hash, downloaded once, unpacked."""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from image import elf
from image.contents import PYTHON_VERSION, SITE_PACKAGES
from image.errors import BuildError
from image.files import Cache, progress, run, sha256_of
from image.tree import Tree

REQUIREMENTS = Path(__file__).with_name("requirements.txt")

# The guest's glibc is 2.36; pip does not derive the older tags by itself.
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)),
    "manylinux2014_x86_64",
)


def fetch(cache: Cache) -> list[Path]:
    """Return the wheels that image/requirements.txt pins, after verifying their hashes."""
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    options = ["--python-version", PYTHON_VERSION, "--implementation", "cp", *platforms]
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + "".join(options).encode()).hexdigest()[:32]

    def download(work: Path) -> None:
        progress("downloading the Python wheels")
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        command += ["--require-hashes", "--only-binary", ":all:", "--no-deps", *options]
        try:
            run([*command, "-r", str(REQUIREMENTS), "-d", str(work)])
        except BuildError as error:
            raise BuildError(f"the wheels cannot be downloaded: {error}") from None

    wheels = sorted(cache.entry("wheels", key, download).glob("*.whl"))
    verify(wheels, REQUIREMENTS.read_text())
    return wheels


def verify(wheels: Sequence[Path], requirements: str) -> None:
    """Compare each wheel with the hashes of the requirements file.

    Raises:
        BuildError: a wheel is not pinned there.
    """
    pinned = set(re.findall(r"--hash=sha256:(\w{64})", requirements))
    for wheel in wheels:
        if sha256_of(wheel) not in pinned:
            raise BuildError(f"{wheel.name} is not what {REQUIREMENTS.name} pins")


def unpack(tree: Tree, wheel: Path) -> None:
    """Add a wheel's files to the tree, and its extension modules without symbols."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith("/"):
                continue
            data = archive.read(name)
            if elf.is_elf(data):
                data = elf.stripped(data)
            tree.file(f"{SITE_PACKAGES}/{name}", data, group="wheels")
