"""What the library for hosts may import."""

from __future__ import annotations

import subprocess
import sys

import pytest

_IMPORT_ALL = """
import importlib, pkgutil, kuasar_host
for module in pkgutil.walk_packages(kuasar_host.__path__, "kuasar_host."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
_REPORT = """
import sys
print(*{name.partition(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        # A program that uses the library has a terminal of its own, or none.
        (_IMPORT_ALL, {"click", "kuasar_debug", "matplotlib"}),
        # Every microVM has such a process: each import costs it memory.
        ("import kuasar_host.vsock.__main__\n", {"click", "gevent", "google", "kuasar_agent"}),
    ],
    ids=["library", "back end"],
)
def test_it_imports_only_what_it_needs(code: str, unwanted: set[str]) -> None:
    command = [sys.executable, "-c", code + _REPORT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert unwanted & set(done.stdout.split()) == set()
