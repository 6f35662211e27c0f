"""The choice of QEMU's accelerator: KVM where it works, else emulation.

/dev/kvm may exist and still fail (nested and paravirtual hosts): QEMU aborts, or the guest dies
with a "KVM internal error" while QEMU stays alive. Only a kernel that boots proves that KVM works.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import IO, NamedTuple

import gevent
from gevent import subprocess

QEMU = "qemu-system-x86_64"
FAILURE = "KVM internal error"
"""QEMU's message on its standard error before it stops the guest for good."""
_DEVICE = Path("/dev/kvm")
_PROOF_WITHIN = 10.0
_WORKS = "works"


class Accelerator(NamedTuple):
    """An accelerator, and why it was chosen."""

    name: str
    """`kvm` or `tcg`."""
    reason: str


def choose(wanted: str, kernel: Path) -> Accelerator:
    """Return the accelerator for `auto`, `kvm` or `tcg`.

    For `auto` a kernel is booted under KVM, for ten seconds at most. The verdict is kept until the
    host reboots or the guest's kernel changes.
    """
    if wanted != "auto":
        return Accelerator(wanted, "asked for")
    if not _DEVICE.exists():
        return Accelerator("tcg", f"no {_DEVICE}")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return Accelerator("tcg", f"no access to {_DEVICE}")
    verdict = _remembered(kernel)
    if verdict is None:
        verdict = _try_kvm(kernel)
        _remember(kernel, verdict)
    return Accelerator("kvm" if verdict == _WORKS else "tcg", f"{_DEVICE} {verdict}")


def distrust(kernel: Path) -> None:
    """Do not choose KVM again: it passed its test, but failed a real guest."""
    _remember(kernel, "fails after the kernel's start")


def arguments(accelerator: Accelerator) -> list[str]:
    """Return QEMU's options for an accelerator."""
    if accelerator.name == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # A CPU model without RDRAND would leave CPython as PID 1 waiting for random numbers.
    return ["-accel", "tcg,thread=multi", "-cpu", "max"]


def _cache_file(kernel: Path) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    file = kernel.stat()
    key = f"{boot} {kernel.absolute()} {file.st_size} {file.st_mtime_ns}"
    return root / "kuasar-agent" / f"kvm-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _remembered(kernel: Path) -> str | None:
    with contextlib.suppress(OSError, RuntimeError):
        return _cache_file(kernel).read_text()
    return None


def _remember(kernel: Path, verdict: str) -> None:
    # Without a cache directory the next boot tries again.
    with contextlib.suppress(OSError, RuntimeError):
        file = _cache_file(kernel)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(verdict)


def _try_kvm(kernel: Path) -> str:
    """Boot the kernel without a root file system: the panic that follows proves that it ran."""
    command = [QEMU, "-M", "q35", *arguments(Accelerator("kvm", "")), "-m", "128M", "-nodefaults"]
    command += ["-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]
    command += ["-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"]
    try:
        qemu = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        return f"cannot be tried: {error.strerror}"
    with qemu:
        assert qemu.stdout is not None
        reader = gevent.spawn(_read_verdict, qemu.stdout)
        try:
            return str(reader.get(timeout=_PROOF_WITHIN))
        except gevent.Timeout:
            return f"does not boot a kernel in {_PROOF_WITHIN:.0f} s"
        finally:
            reader.kill()
            qemu.kill()


def _read_verdict(output: IO[bytes]) -> str:
    printed = False
    for line in output:
        if FAILURE.encode() in line:
            return "stops the guest with an internal error"
        if b"Kernel panic" in line:
            return _WORKS
        printed = printed or b"Linux version" in line
    return "does not run the kernel to its end" if printed else "does not run a kernel"
