"""The Go programs of the tests, built offline from Debian's Go packages."""

from __future__ import annotations

import os
import subprocess
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
