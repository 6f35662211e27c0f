"""Packages, wheels and Python sources: what enters the image."""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
from pathlib import Path
from typing import Any

import pytest

from image import wheels
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
