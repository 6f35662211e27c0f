"""Files that are either whole or absent, commands, and the cache that `make clean` keeps."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from image.errors import BuildError

CHECKSUMS = "SHA256SUMS"
SCRATCH = ".new-"
SECONDS_PER_DAY = 86_400


def progress(text: str) -> None:
    """Print the name of a step that takes seconds."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def sha256(data: bytes) -> str:
    """Return the hash of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the hash of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
) -> bytes:
    """Run a command to its end and return its output.

    Raises:
        BuildError: the command is not installed or failed; the text ends with its last error.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            [os.fspath(word) for word in command],
            cwd=cwd,
            env=env,
            input=stdin if stdin is not None else b"",
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise BuildError(f"{name} is not installed") from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        lines = [line for line in lines if line.startswith(("E:", "ERROR:"))] or lines
        raise BuildError(f"{name} failed: {lines[-1] if lines else f'exit {done.returncode}'}")
    return done.stdout


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which it replaces if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def cache_directory() -> Path:
    """Return the directory that keeps downloads and layers for later builds of any checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kuasar-agent"


class Cache:
    """A store of directories named by a hash of their inputs, each with its files' checksums.

    An entry appears by one rename, so that an entry that exists is complete. Its checksums are
    verified at every use: a damaged entry is built again.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for scratch in root.glob(f"*/{SCRATCH}*"):
            # A killed build left this behind: no build runs for a day.
            if time.time() - scratch.stat().st_mtime > SECONDS_PER_DAY:
                shutil.rmtree(scratch, ignore_errors=True)

    def entry(self, kind: str, key: str, build: Callable[[Path], None]) -> Path:
        """Return the directory for `key`; `build` fills it if there is none or it is damaged."""
        final = self.root / kind / key
        if final.is_dir():
            if _is_sound(final):
                return final
            progress(f"cache entry {final} is damaged, building it again")
            shutil.rmtree(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=SCRATCH) as scratch:
            work = Path(scratch) / "entry"
            work.mkdir()
            build(work)
            names = sorted(path.name for path in work.iterdir())
            lines = [f"{sha256_of(work / name)}  {name}\n" for name in names]
            (work / CHECKSUMS).write_text("".join(lines))
            try:
                work.rename(final)
            except OSError:
                # Another build with the same inputs finished first, with an equal result.
                if not _is_sound(final):
                    raise
        return final


def _is_sound(entry: Path) -> bool:
    try:
        lines = (entry / CHECKSUMS).read_text().splitlines()
        pairs = [line.split("  ", 1) for line in lines]
        return all(sha256_of(entry / name) == digest for digest, name in pairs)
    except (OSError, ValueError):
        return False
