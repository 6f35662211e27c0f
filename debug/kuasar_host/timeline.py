"""The phases of a boot, from QEMU's first instruction to the agent's first answer, on one clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kuasar_agent.api import agent_pb2
from kuasar_host.sandbox import Sandbox

_UNPACK = ("Trying to unpack rootfs", "Unpacking initramfs")
_UNPACKED = "Freeing initrd memory"
_INIT = "as init process"


class Bar(NamedTuple):
    """A phase, in milliseconds since QEMU was executed."""

    name: str
    group: str
    """machine, kernel, python or agent."""
    start: float
    length: float
    inner: bool = False
    """Whether it is a part of the last bar that is not."""

    @property
    def end(self) -> float:
        """Return the end of the phase."""
        return self.start + self.length


class Timeline(NamedTuple):
    """The phases of one boot."""

    bars: Sequence[Bar]
    serving: float
    """When the agent began to accept connections."""
    answered: float
    """When the host had the answer to its first call."""
    about: str
    """Kernel, agent, accelerator and share."""


def read(sandbox: Sandbox) -> Timeline:
    """Ask the agent for its steps, and convert its clock and the kernel's to the host's.

    Raises:
        OSError, StatusError: the agent does not answer.
    """
    boot = sandbox.boot_report()
    kernel_at = sandbox.console.kernel_at
    if kernel_at is None:
        # The console has no line of the agent: it served just before it answered.
        kernel_at = sandbox.ready_at - boot.serving_ms / 1000
    zero = max(0.0, (kernel_at - sandbox.started_at) * 1000)
    about = f"Linux {boot.kernel}, agent {boot.version}, {sandbox.accelerator.name}, "
    return Timeline(
        bars=list(bars(boot, zero)),
        serving=zero + boot.serving_ms,
        answered=(sandbox.ready_at - sandbox.started_at) * 1000,
        about=f"{about}share {sandbox.sharefs}",
    )


def bars(boot: agent_pb2.BootResponse, zero: float) -> Iterator[Bar]:
    """Yield the phases in order; the guest's clock began `zero` ms after QEMU's start."""
    first = min((step.start_ms for step in boot.steps), default=boot.serving_ms)
    init = _mark(boot, _INIT)
    yield Bar("QEMU and its firmware", "machine", 0, zero)
    yield Bar("kernel", "kernel", zero, init or first)
    unpack, unpacked = (_mark(boot, *words) for words in (_UNPACK, (_UNPACKED,)))
    if unpack and unpacked:
        yield Bar("unpacking the initrd", "kernel", zero + unpack, unpacked - unpack, inner=True)
    if init:
        yield Bar("Python's own start", "python", zero + init, first - init)
    outer = Bar("", "", 0, 0)
    for step in sorted(boot.steps, key=lambda step: (step.start_ms, -step.ms)):
        group = "python" if step.name.startswith("import") else "agent"
        start = zero + step.start_ms
        inner = start + step.ms <= outer.end
        bar = Bar(step.name, group, start, step.ms, inner)
        yield bar
        outer = outer if inner else bar


def _mark(boot: agent_pb2.BootResponse, *words: str) -> float:
    """Return when the kernel printed one of these, in ms of its clock; 0 if it did not."""
    for mark in boot.marks:
        if any(word in mark.text for word in words):
            return mark.at_ms
    return 0.0
