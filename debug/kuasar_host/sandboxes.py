"""Sandbox directories of a host, by id or by a unique prefix of it, as kuasar-ctl finds them.

Kuasar keeps the directory of a Cloud Hypervisor sandbox in /run/kuasar-vmm (vmm/sandbox and
tools/kuasar-ctl/src/sandbox.rs in Kuasar's sources) and its console in /tmp
(vmm/sandbox/src/cloud_hypervisor/factory.rs).
"""

from __future__ import annotations

import os
from pathlib import Path

from kuasar_host.errors import HostError

ROOT = Path("/run/kuasar-vmm")
ROOT_VARIABLE = "KUASAR_SANDBOXES"
"""Environment variable that names another root."""

_CONSOLES = Path("/tmp")
_SHOWN = 5


def root() -> Path:
    """Return the directory that holds the sandboxes."""
    return Path(os.environ.get(ROOT_VARIABLE) or ROOT)


def ids() -> list[str]:
    """Return the ids of all sandboxes in order; none if there is no root."""
    try:
        with os.scandir(root()) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []


def find(name: str) -> Path:
    """Return the directory of a sandbox.

    `name` is its id, the beginning of its id, or a path with at least one slash.

    Raises:
        HostError: no sandbox matches, or more than one.
    """
    if "/" in name:
        path = Path(name)
        if not path.is_dir():
            raise HostError(f"{name}: no such directory")
        return path
    found = [id for id in ids() if name and id.startswith(name)]
    if name in found:
        return root() / name
    if not found:
        raise HostError(f"no sandbox {name!r} in {root()}")
    if len(found) > 1:
        rest = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise HostError(f"{name!r} is ambiguous: {', '.join(found[:_SHOWN])}{rest}")
    return root() / found[0]


def console_log(directory: Path) -> Path:
    """Return the file with the guest's console, which may not exist."""
    own = directory / "console.log"
    kuasars = _CONSOLES / f"{directory.absolute().name}-task.log"
    return kuasars if kuasars.exists() and not own.exists() else own
