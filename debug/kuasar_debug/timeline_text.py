"""The phases of a boot as text."""

from __future__ import annotations

from kuasar_host.timeline import Timeline

_WIDTH = 44


def text(timeline: Timeline) -> str:
    """Return a table with a row and a bar for each phase."""
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
