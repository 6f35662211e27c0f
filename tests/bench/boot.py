"""What a microVM costs: the way from QEMU's start to a container's output, memory, file sizes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from kuasar_host.config import Config
from kuasar_host.microvm import MicroVM
from tests.bench import guest
from tests.bench.table import show
from tests.support.guest import IMAGE
from tests.support.timeouts import GUEST

BOOTS = 3
_MIB = 1 << 20
_MEMORY = ("Pss", "Pss_Anon", "Pss_File", "Pss_Shmem", "Rss")


class Boot(NamedTuple):
    """One microVM's figures: times in milliseconds, memory in KiB."""

    accelerator: str
    phases: dict[str, float]
    """Since QEMU's start, on the host's clock."""
    steps: dict[str, tuple[float, float]]
    """Start since the kernel's and length, on the guest's clock."""
    memory: dict[str, int]


def main() -> None:
    boots = [_boot() for _ in range(BOOTS)]
    load = os.getloadavg()[0]
    conditions = f"{boots[0].accelerator}, {os.cpu_count()} CPUs, load {load:.1f}"
    _show_phases(f"From QEMU's start, {BOOTS} boots ({conditions}), ms on the host's clock", boots)
    _show_steps(boots)
    _show_memory(boots)
    _show_sizes()


def _boot() -> Boot:
    with tempfile.TemporaryDirectory(prefix="kuasar-") as scratch:
        config = Config(
            directory=Path(scratch),
            kernel=IMAGE / "vmlinux",
            initrd=[IMAGE / "kuasar.initrd"],
            ready_within=GUEST,
        )
        with MicroVM.boot(config) as vm:
            first = guest.run(vm, "first", ["echo", "hello"])
            rollup = guest.run(vm, "memory", ["cat", "/proc/1/smaps_rollup"], _let_see_init)
            assert vm.console.init_at is not None
            points = {
                "init's first line": vm.console.init_at,
                "serving 1024": vm.ready_at,
                "first container's output": first.first_at,
            }
            phases = {name: (at - vm.started_at) * 1000 for name, at in points.items()}
            memory = _parse_rollup(rollup.text)
            return Boot(vm.accelerator.name, phases, _steps(vm), memory)


def _let_see_init(spec: guest.Spec) -> None:
    """Give a container the guest's processes, and the right to read their memory maps."""
    spaces = spec["linux"]["namespaces"]
    spec["linux"]["namespaces"] = [space for space in spaces if space["type"] != "pid"]
    for names in spec["process"]["capabilities"].values():
        names.append("CAP_SYS_PTRACE")


def _steps(vm: MicroVM) -> dict[str, tuple[float, float]]:
    report = vm.boot_report()
    steps = {step.name: (step.start_ms, step.ms) for step in report.steps}
    return steps | {"(serving)": (report.serving_ms, 0.0)}


def _parse_rollup(text: str) -> dict[str, int]:
    """KiB by name (proc_pid_smaps(5)); the first line is the address range."""
    lines = (line.split() for line in text.splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) for words in lines}


def _show_phases(title: str, boots: Sequence[Boot]) -> None:
    rows: list[list[str | float]] = []
    before = [0.0] * len(boots)
    for name in boots[0].phases:
        at = [boot.phases[name] for boot in boots]
        phase = [end - start for start, end in zip(before, at, strict=True)]
        rows.append([name, min(at), median(at), max(at), median(phase)])
        before = at
    show(title, ["reached", "min", "median", "max", "phase's median"], rows)


def _show_steps(boots: Sequence[Boot]) -> None:
    rows: list[list[str | float]] = []
    for name in boots[0].steps:
        starts, lengths = zip(*(boot.steps[name] for boot in boots), strict=True)
        rows.append([name, median(starts), median(lengths)])
    show("In init, medians, ms on the guest's clock", ["step", "starts at", "takes"], rows)


def _show_memory(boots: Sequence[Boot]) -> None:
    rows: list[list[str | float]] = []
    for name in _MEMORY:
        values = [boot.memory[name] / 1024 for boot in boots]
        rows.append([name, min(values), median(values), max(values)])
    show("Memory of PID 1 after one container, MiB", ["", "min", "median", "max"], rows)


def _show_sizes() -> None:
    sizes = {name: (IMAGE / name).stat().st_size for name in ("kuasar.initrd", "vmlinux")}
    rows: list[list[str | float]] = [[name, str(size), size / _MIB] for name, size in sizes.items()]
    show("Files", ["", "bytes", "MiB"], rows)
