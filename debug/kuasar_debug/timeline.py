"""Start-up from QEMU's first instruction to an agent that serves, as bars on one clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from google.protobuf.empty_pb2 import Empty

from kuasar_agent.api import agent_pb2
from kuasar_host.sandbox import Sandbox

AGENT = agent_pb2.DESCRIPTOR.services_by_name["Agent"]

_WITHIN = 30.0
_WIDTH = 44
_UNPACK = ("Trying to unpack rootfs", "Unpacking initramfs")
_UNPACKED = "Freeing initrd memory"
_INIT = "as init process"


class Bar(NamedTuple):
    """Milliseconds since QEMU was executed."""

    name: str
    group: str
    """machine, kernel, python or agent."""
    start: float
    length: float
    inner: bool = False
    """It is a part of the bar before it."""

    @property
    def end(self) -> float:
        return self.start + self.length


class Timeline(NamedTuple):
    """A start-up, and what it was one of."""

    bars: Sequence[Bar]
    serving: float
    """When the agent began to accept connections."""
    answered: float
    """When the host had the answer to its first call."""
    about: str


def read(sandbox: Sandbox) -> Timeline:
    """Ask the agent, and put its clock and the kernel's on the host's. Raises StatusError."""
    with sandbox.connect() as client:
        boot = client.stub(AGENT).boot(Empty(), timeout=_WITHIN)
    # The guest's clock starts with its kernel; that moment is known from the console.
    kernel_at = sandbox.console.kernel_at
    zero = 0.0 if kernel_at is None else max(0.0, (kernel_at - sandbox.started_at) * 1000)
    about = f"Linux {boot.kernel}, agent {boot.version}, {sandbox.accelerator.name}, "
    return Timeline(
        bars=list(bars(boot, zero)),
        serving=zero + boot.serving_ms,
        answered=(sandbox.ready_at - sandbox.started_at) * 1000,
        about=f"{about}share {sandbox.sharefs}",
    )


def bars(boot: agent_pb2.BootResponse, zero: float) -> Iterator[Bar]:
    """The phases in order; `zero` is when the guest's clock began, in ms since QEMU's start."""
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


def text(timeline: Timeline) -> str:
    """A table with a bar for each line."""
    scale = _WIDTH / max(timeline.answered, 1)
    lines = [f"from QEMU's start, ms ({timeline.about})", ""]
    for bar in timeline.bars:
        before = round(bar.start * scale)
        drawn = " " * before + "█" * max(1, round(bar.end * scale) - before)
        name = f"  {bar.name}" if bar.inner else bar.name
        lines.append(f"{name:24}{bar.start:8.0f} {bar.length:8.0f}  {drawn}")
    lines.append(f"{'serving':24}{timeline.serving:8.0f}")
    lines.append(f"{'first call answered':24}{timeline.answered:8.0f}")
    return "\n".join(lines)


def _mark(boot: agent_pb2.BootResponse, *words: str) -> float:
    """When the kernel said one of these, in ms; 0 if it did not."""
    for mark in boot.marks:
        if any(word in mark.text for word in words):
            return mark.at_ms
    return 0.0
