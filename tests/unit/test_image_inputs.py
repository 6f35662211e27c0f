"""Packages, wheels and Python sources: what enters the image."""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import os
from pathlib import Path
from typing import Any

import pytest

from image import packages, wheels
from image.errors import BuildError
from image.guest_compile import compiled
from image.imports import imported
from image.packages import parse_uris

DIGEST = "ab" * 32


def test_what_apt_prints_is_read() -> None:
    output = (
        "Reading package lists...\n"
        f"'http://mirror/pool/b/busybox_1.35.0-4%2bb1_amd64.deb' "
        f"busybox_1%3a1.35.0-4+b1_amd64.deb 452120 SHA256:{DIGEST}\n"
    )
    (deb,) = parse_uris(output)
    assert (deb.name, deb.version, deb.sha256) == ("busybox", "1:1.35.0-4+b1", DIGEST)
    assert deb.file_name == "busybox_1%3a1.35.0-4+b1_amd64.deb"


def test_a_package_without_a_strong_hash_is_not_taken() -> None:
    assert parse_uris("'http://mirror/a_1_amd64.deb' a_1_amd64.deb 12 MD5Sum:00\n") == []


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a stand-in for apt-get `downloads`: no real mirror can be made to fail."""
    served = tmp_path / "served"
    served.write_bytes(b"whole package")
    digest = hashlib.sha256(b"whole package").hexdigest()
    commands = tmp_path / "bin"
    commands.mkdir()
    uri = f"'http://mirror/a_1_amd64.deb' a_1_amd64.deb 13 SHA256:{digest}"
    script = (
        "#!/bin/sh\n"
        'case "$*" in\n'
        f'  *print-uris*) echo "{uri}" ;;\n'
        f"  *download*) cp {served} a_1_amd64.deb; [ ! -e {served}.fails ] || exit 100 ;;\n"
        "esac\n"
    )
    (commands / "apt-get").write_text(script)
    (commands / "apt-get").chmod(0o755)
    path = f"{commands}:{os.environ['PATH']}"
    monkeypatch.setattr(packages, "ENVIRONMENT", {**packages.ENVIRONMENT, "PATH": path})
    return served


def test_a_package_is_downloaded_once(archive: Path, tmp_path: Path) -> None:
    apt = packages.Apt(tmp_path / "debs", refresh=False)
    (deb,) = apt.obtain(["a"])
    assert apt.path(deb).read_bytes() == b"whole package"
    archive.unlink()
    assert apt.obtain(["a"]) == [deb]


def test_a_download_that_is_cut_short_is_not_taken(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(b"whole pack")
    with pytest.raises(BuildError, match=r"a_1_amd64\.deb is not the file that apt's index names"):
        packages.Apt(tmp_path / "debs", refresh=False).obtain(["a"])
    assert list((tmp_path / "debs").iterdir()) == []


def test_a_download_that_fails_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    archive.with_name("served.fails").touch()
    with pytest.raises(BuildError, match="apt-get failed"):
        packages.Apt(tmp_path / "debs", refresh=False).obtain(["a"])
    assert list((tmp_path / "debs").iterdir()) == []


def test_a_damaged_package_in_the_cache_is_fetched_again(archive: Path, tmp_path: Path) -> None:
    apt = packages.Apt(tmp_path / "debs", refresh=False)
    (deb,) = apt.obtain(["a"])
    apt.path(deb).write_bytes(b"whole packbge")
    apt.obtain(["a"])
    assert apt.path(deb).read_bytes() == b"whole package"


def test_a_wheel_that_is_not_pinned_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "gevent-1-any.whl"
    wheel.write_bytes(b"good")
    pin = f"gevent==1 \\\n    --hash=sha256:{hashlib.sha256(b'good').hexdigest()}\n"
    wheels.verify([wheel], pin)
    wheel.write_bytes(b"bad")
    with pytest.raises(BuildError, match="is not what"):
        wheels.verify([wheel], pin)


SOURCE = b'''"""Module."""
class A:
    """Class."""
    def method(self):
        """Method."""
        assert self is None, "kept"
def alone():
    """Nothing else."""
'''


def run_compiled(data: bytes) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "compiled"}
    exec(marshal.loads(data[16:]), namespace)  # noqa: S102
    return namespace


def test_a_compiled_module_is_never_held_against_its_source() -> None:
    data = compiled(SOURCE, "/usr/lib/a.py", docstrings=True)
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert data[4:8] == b"\x01\0\0\0"
    assert data[8:16] == importlib.util.source_hash(SOURCE)
    assert marshal.loads(data[16:]).co_filename == "/usr/lib/a.py"


def test_docstrings_can_stay_behind_but_asserts_travel() -> None:
    module = run_compiled(compiled(SOURCE, "a.py", docstrings=False))
    assert module.get("__doc__") is None
    assert module["A"].__doc__ is None
    assert module["alone"]() is None
    with pytest.raises(AssertionError, match="kept"):
        module["A"]().method()


def test_docstrings_travel_where_they_are_wanted() -> None:
    module = run_compiled(compiled(SOURCE, "a.py", docstrings=True))
    assert module["A"].method.__doc__ == "Method."


def test_imports_that_run_late_are_seen_too() -> None:
    source = b"""
import os, json.decoder as d
from . import sibling
def f():
    from gevent.server import StreamServer
"""
    assert imported(source) == {"os", "json.decoder", "gevent.server"}


def test_imports_that_may_fail_are_not_required() -> None:
    source = b"""
if typing.TYPE_CHECKING:
    from _typeshed import ReadableBuffer
else:
    import array
try:
    import readline
except (OSError, ImportError):
    import code
"""
    assert imported(source) == {"array", "code"}
