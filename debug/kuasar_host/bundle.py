"""An OCI bundle as Kuasar leaves it in the shared directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gevent import subprocess

from kuasar_host.errors import HostError

BUSYBOX = Path("/bin/busybox")
_CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID"]
_CAPABILITIES += ["CAP_SETUID", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT"]


def make_bundle(shared: Path, id: str, command: Sequence[str], rootfs: Path | None = None) -> Path:
    """Write a bundle to `<shared>/<id>` and return its path.

    The container gets a copy of `rootfs`, or one made of busybox.

    Raises:
        HostError: the root file system cannot be made.

    Blocks: the greenlet.
    """
    path = shared / id
    path.mkdir(parents=True)
    root = path / "rootfs"
    if rootfs is None:
        make_busybox_rootfs(root)
    else:
        _copy_tree(rootfs, root)
    (path / "config.json").write_text(json.dumps(make_spec(id, command)))
    (path / f"storage-{id}").write_text("[]")
    return path


def _copy_tree(source: Path, target: Path) -> None:
    # Owners, links, devices and fifos as they are: opening a device of the host would read it.
    copy = ["cp", "--archive", "--no-target-directory", "--", str(source), str(target)]
    done = subprocess.run(copy, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise HostError(f"{source} cannot be copied: {done.stderr.strip()}")


def make_busybox_rootfs(root: Path) -> None:
    """Make a root file system with busybox and a link for each of its applets.

    Raises:
        HostError: busybox is missing.
    """
    if not BUSYBOX.exists():
        raise HostError(f"{BUSYBOX} does not exist (Debian: busybox-static)")
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")


def make_spec(id: str, command: Sequence[str]) -> dict[str, Any]:
    """Return an OCI runtime spec (https://github.com/opencontainers/runtime-spec)."""
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(command),
            "env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/"],
            "cwd": "/",
            "capabilities": capabilities,
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "",
        "mounts": [
            _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
            _mount("/dev", "tmpfs", "nosuid", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666"),
            _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        ],
        "linux": {
            "resources": {},
            "cgroupsPath": f"/kubepods/{id}",
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
        },
    }


def _mount(target: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": list(options)}
