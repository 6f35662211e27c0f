"""Debian packages: resolved and fetched by apt, verified, read without being installed."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from image.errors import BuildError
from image.files import SCRATCH, progress, run, sha256_of
from image.tree import Tree, merged

ARCHITECTURE = "amd64"
APT_GET = ("apt-get", "-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3")
# Untranslated output; proxies and the like stay as they are.
ENVIRONMENT = {**os.environ, "LC_ALL": "C"}
T = TypeVar("T")

_URI_LINE = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>\w{64})$")


@dataclass(frozen=True)
class Deb:
    """A package in the version that apt would fetch now."""

    name: str
    version: str
    file_name: str
    sha256: str


class Apt:
    """The package lists of this machine's apt, refreshed at most once."""

    def __init__(self, directory: Path, *, refresh: bool = True) -> None:
        self._directory = directory
        self._may_refresh = refresh

    def obtain(self, names: Sequence[str]) -> list[Deb]:
        """Download the current version of each package unless it is there already.

        Raises:
            BuildError: apt knows a package in no version, or a download failed or is not the
                file that apt's signed index names.
        """
        machine = run(["dpkg", "--print-architecture"], env=ENVIRONMENT).decode().strip()
        if machine != ARCHITECTURE:
            raise BuildError(f"the image is built on {ARCHITECTURE}, this machine is {machine}")
        return self._with_fresh_lists(lambda: self._obtain(names))

    def dependency(self, metapackage: str, pattern: str) -> str:
        """Return the one dependency of a metapackage whose name matches the regular expression."""
        return self._with_fresh_lists(lambda: self._dependency(metapackage, pattern))

    def path(self, deb: Deb) -> Path:
        """Return the file of an obtained package."""
        return self._directory / deb.file_name

    def _with_fresh_lists(self, attempt: Callable[[], T]) -> T:
        """Try with the present lists; if that fails, with fresh ones: they may be outdated."""
        try:
            return attempt()
        except BuildError:
            if not self._may_refresh:
                raise
        self._may_refresh = False
        progress("refreshing apt's package lists")
        # A broken source of another vendor fails the command even if our packages are found.
        subprocess.run([*APT_GET, "update"], env=ENVIRONMENT, capture_output=True, check=False)
        return attempt()

    def _obtain(self, names: Sequence[str]) -> list[Deb]:
        debs = self._resolve(names)
        self._directory.mkdir(parents=True, exist_ok=True)
        absent = [deb for deb in debs if not self._holds(deb)]
        if absent:
            progress(f"downloading {len(absent)} Debian packages")
            self._download(absent)
        return debs

    def _resolve(self, names: Sequence[str]) -> list[Deb]:
        # An empty directory, because apt leaves out what it finds already downloaded.
        with tempfile.TemporaryDirectory() as empty:
            command = [*APT_GET, "--print-uris", "download", *names]
            output = run(command, env=ENVIRONMENT, cwd=Path(empty)).decode()
        found = {deb.name: deb for deb in parse_uris(output)}
        missing = [name for name in names if name not in found]
        if missing:
            raise BuildError(f"apt names no verifiable source for: {' '.join(missing)}")
        return [found[name] for name in names]

    def _dependency(self, metapackage: str, pattern: str) -> str:
        output = run(["apt-cache", "depends", metapackage], env=ENVIRONMENT).decode()
        names = re.findall(rf"^ +Depends: ({pattern})$", output, re.MULTILINE)
        if len(names) != 1:
            raise BuildError(f"apt names {len(names)} packages behind {metapackage}, not one")
        return str(names[0])

    def _holds(self, deb: Deb) -> bool:
        path = self.path(deb)
        return path.is_file() and sha256_of(path) == deb.sha256

    def _download(self, debs: Sequence[Deb]) -> None:
        with tempfile.TemporaryDirectory(dir=self._directory, prefix=SCRATCH) as scratch:
            names = [f"{deb.name}={deb.version}" for deb in debs]
            run([*APT_GET, "download", *names], env=ENVIRONMENT, cwd=Path(scratch))
            for deb in debs:
                path = Path(scratch) / deb.file_name
                if not path.is_file() or sha256_of(path) != deb.sha256:
                    raise BuildError(f"{deb.file_name} is not the file that apt's index names")
                path.replace(self.path(deb))


def parse_uris(output: str) -> list[Deb]:
    """Parse the output of `apt-get --print-uris download`."""
    debs = []
    for line in output.splitlines():
        match = _URI_LINE.match(line)
        if match:
            file_name = match["file"]
            name, version, _ = urllib.parse.unquote(file_name).split("_", 2)
            debs.append(Deb(name, version, file_name, match["sha256"]))
    return debs


def contents(deb: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Return the files and links of a package, with merged paths, without writing to disk."""
    data = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
    assert data.stdout is not None
    with data, tarfile.open(fileobj=data.stdout, mode="r|") as archive:
        for member in archive:
            member.name = merged(member.name)
            file = archive.extractfile(member) if member.isreg() else None
            if file is not None:
                yield member, file.read()
            elif member.issym():
                yield member, b""
        # dpkg-deb must not die of a closed pipe while it writes the last padding.
        while data.stdout.read(1 << 16):
            pass
    if data.returncode != 0:
        raise BuildError(f"{deb.name} cannot be unpacked")


def take(tree: Tree, deb: Path, patterns: Sequence[str], group: str) -> None:
    """Add to the tree the files of a package that the patterns match.

    Raises:
        BuildError: a pattern matches nothing: the package has changed since it was written.
    """
    unused = set(patterns)
    for member, data in contents(deb):
        covering = [pattern for pattern in patterns if fnmatchcase(member.name, pattern)]
        if not covering:
            continue
        unused.difference_update(covering)
        if member.issym():
            tree.link(member.name, member.linkname, group=group)
        else:
            tree.file(member.name, data, mode=member.mode & 0o755, group=group)
    if unused:
        raise BuildError(f"{deb.name} has nothing at {' '.join(sorted(unused))}")
