"""A real containerd shim for runc, without containerd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMESPACE = "interop"


@contextmanager
def running_shim(bundle: Path, id: str) -> Iterator[str]:
    """The address of a shim started in a bundle as containerd starts it; gone at the end.

    A bundle without a config.json gets an empty one. The shim's events go nowhere.
    """
    config = bundle / "config.json"
    if not config.exists():
        config.write_text(json.dumps({"ociVersion": "1.0.2"}))
    # The shim dies when nobody reads its log. An end of our own that is open both ways is enough:
    # what it says fits the pipe.
    os.mkfifo(bundle / "log")
    log = os.open(bundle / "log", os.O_RDWR | os.O_CLOEXEC)
    nowhere = str(bundle / "none.sock")
    command = ["containerd-shim-runc-v2", "-namespace", NAMESPACE, "-id", id]
    command += ["-address", nowhere, "start"]
    socket_path = Path("/nonexistent")
    try:
        environment = os.environ | {"TTRPC_ADDRESS": nowhere}
        started = subprocess.run(
            command, cwd=bundle, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        address = started.stdout.strip()
        socket_path = Path(address.removeprefix("unix://"))
        yield address
    finally:
        for pid in shims_in(bundle):
            os.kill(pid, signal.SIGKILL)
        socket_path.unlink(missing_ok=True)
        os.close(log)


def shims_in(bundle: Path) -> list[int]:
    """The shims that run in a bundle: their working directory is all that tells them apart."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            shim = process.joinpath("comm").read_text().startswith("containerd-shim")
            if shim and process.joinpath("cwd").readlink() == bundle:
                found.append(int(process.name))
        except OSError:
            # It ended meanwhile.
            continue
    return found
