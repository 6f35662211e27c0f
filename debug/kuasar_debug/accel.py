"""Which accelerator QEMU gets: KVM where it really works, else emulation.

/dev/kvm may exist and still fail (nested and paravirtual hosts): the guest then dies with a "KVM
internal error" while QEMU stays alive. Only a kernel that prints something proves it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, NamedTuple

import gevent
from gevent import subprocess

QEMU = "qemu-system-x86_64"
_PROOF_WITHIN = 10.0


class Accelerator(NamedTuple):
    name: str
    """`kvm` or `tcg`."""
    reason: str


def choose(wanted: str, kernel: Path) -> Accelerator:
    """The accelerator for `auto`, `kvm` or `tcg`; a verdict on KVM holds until the host reboots."""
    if wanted != "auto":
        return Accelerator(wanted, "asked for")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Accelerator("tcg", "no access to /dev/kvm")
    cache = _cache_file()
    if not cache.exists():
        verdict = "works" if _boots_with_kvm(kernel) else "does not boot a guest"
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(verdict)
    verdict = cache.read_text()
    return Accelerator("kvm" if verdict == "works" else "tcg", f"/dev/kvm {verdict}")


def arguments(accelerator: Accelerator) -> list[str]:
    """QEMU's options for an accelerator."""
    if accelerator.name == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "max"]


def _cache_file() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return root / "kuasar-agent" / f"kvm-{boot}"


def _boots_with_kvm(kernel: Path) -> bool:
    command = [QEMU, "-M", "q35", *arguments(Accelerator("kvm", "")), "-m", "128M", "-nodefaults"]
    command += ["-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]
    command += ["-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as qemu:
        assert qemu.stdout is not None
        reader = gevent.spawn(_reaches_panic, qemu.stdout)
        try:
            return bool(reader.get(timeout=_PROOF_WITHIN))
        except gevent.Timeout:
            return False
        finally:
            qemu.kill()


def _reaches_panic(output: IO[bytes]) -> bool:
    """Whether the kernel gets as far as missing its root, which is all it has to do."""
    for line in output:
        if b"KVM internal error" in line:
            return False
        if b"Kernel panic" in line:
            return True
    return False
