"""The kernel of image/kernel.config, compiled from Debian's source package, which takes minutes."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from image import elf
from image.errors import BuildError
from image.files import progress, run, sha256_of

CONFIG = Path(__file__).with_name("kernel.config")
RELEASE = "release"
_NEEDED = ("bc", "bison", "flex", "gcc", "make", "xz")
# Without these the kernel's banner names the building machine and the time.
_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "LC_ALL": "C",
    "KBUILD_BUILD_USER": "kuasar-agent",
    "KBUILD_BUILD_HOST": "build",
    "KBUILD_BUILD_VERSION": "1",
    "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
    "KCONFIG_ALLCONFIG": str(CONFIG),
}
_SETTING = re.compile(r"^(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)$", re.MULTILINE)


def recipe() -> list[str]:
    """Return the inputs of a build besides the source package and the configuration."""
    compiler = run(["gcc", "--version"]).decode().splitlines()[0]
    return [sha256_of(Path(__file__)), compiler]


def build(package: Path, work: Path) -> None:
    """Write vmlinux, its release and its complete configuration to the directory `work`.

    Raises:
        BuildError: a tool or the space for it is missing, or the configuration does not fit.
    """
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        raise BuildError(f"compiling the kernel needs {' '.join(missing)}")
    with tempfile.TemporaryDirectory(dir=work.parent) as scratch:
        source = _unpack(package, Path(scratch))
        make: tuple[str | Path, ...] = ("make", "-s", "ARCH=x86_64", "-C", source)
        run([*make, "allnoconfig"], env=_ENVIRONMENT)
        check_settings(CONFIG.read_text(), (source / ".config").read_text())
        progress(f"compiling the kernel on {os.cpu_count()} CPUs, some minutes")
        run([*make, f"-j{os.cpu_count()}", "vmlinux"], env=_ENVIRONMENT)
        release = run([*make, "kernelrelease"], env=_ENVIRONMENT).decode().strip()
        (work / "vmlinux").write_bytes(elf.stripped((source / "vmlinux").read_bytes()))
        (work / RELEASE).write_text(release)
        shutil.copyfile(source / ".config", work / "config")


def _unpack(package: Path, scratch: Path) -> Path:
    progress("unpacking the kernel's source")
    run(["dpkg-deb", "-x", package, scratch])
    archives = sorted(scratch.glob("usr/src/linux-source-*.tar.xz"))
    if len(archives) != 1:
        raise BuildError(f"{package.name} has {len(archives)} source archives, not one")
    run(["tar", "-xJf", archives[0], "-C", scratch])
    return scratch / archives[0].name.removesuffix(".tar.xz")


def settings(text: str) -> dict[str, str]:
    """Return the values of a configuration; a setting that is "not set" has the value `n`."""
    found = _SETTING.findall(text)
    return {name or off: value if name else "n" for name, value, off in found}


def check_settings(wanted: str, got: str) -> None:
    """Compare a complete configuration with our list of settings.

    Raises:
        BuildError: a line of ours had no effect: a dependency is off, or the name is wrong.
    """
    result = settings(got)
    lost = _different(settings(wanted).items(), result)
    if lost:
        raise BuildError(f"{CONFIG.name}: without effect in this kernel: {' '.join(lost)}")


def _different(wanted: Iterable[tuple[str, str]], result: dict[str, str]) -> list[str]:
    return [name for name, value in wanted if result.get(name, "n") != value]
