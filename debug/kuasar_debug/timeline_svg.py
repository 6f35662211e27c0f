"""The phases of a boot as a picture in the format of the file's ending (.svg, .png, .pdf)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from kuasar_host.timeline import Bar, Timeline

_GROUPS = {
    "machine": ("machine", "#94a3b8"),
    "kernel": ("kernel", "#0f766e"),
    "python": ("Python and imports", "#d97706"),
    "agent": ("the agent's own steps", "#4f46e5"),
}
_INK, _FAINT, _RULE, _PAPER = "#0f172a", "#64748b", "#e2e8f0", "#ffffff"
_ROW, _BAR, _INNER = 1.0, 0.62, 0.34
_WIDTH_INCHES, _ROW_INCHES, _FRAME_INCHES = 9.6, 0.255, 2.0
_SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "svg.fonttype": "none",
    "svg.hashsalt": "kuasar",
}


def draw(timeline: Timeline, path: Path) -> None:
    """Write the picture.

    Raises:
        ValueError: matplotlib does not know the ending of `path`.
        OSError: the file cannot be written.
    """
    with mpl.rc_context(_SETTINGS):
        rows = len(timeline.bars)
        figure = Figure(
            figsize=(_WIDTH_INCHES, _FRAME_INCHES + rows * _ROW_INCHES), facecolor=_PAPER
        )
        height = figure.get_figheight()
        summary = figure.add_axes((0.205, 1 - 1.29 / height, 0.755, 0.2 / height))
        chart = figure.add_axes((0.205, 0.42 / height, 0.755, rows * _ROW_INCHES / height))
        _title(figure, timeline, height)
        _summarize(summary, timeline)
        _chart(chart, timeline)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata, dpi=160)


def _title(figure: Figure, timeline: Timeline, height: float) -> None:
    seconds = timeline.serving / 1000
    figure.text(
        0.03,
        1 - 0.36 / height,
        f"{seconds:.2f} s from QEMU's start to an agent that serves",
        color=_INK,
        fontsize=13,
        fontweight="bold",
    )
    figure.text(0.03, 1 - 0.57 / height, timeline.about, color=_FAINT, fontsize=8.5)


def _summarize(axes: Axes, timeline: Timeline) -> None:
    """Draw one bar with the share of each group, which is the legend too."""
    totals = {
        group: sum(bar.length for bar in timeline.bars if bar.group == group and not bar.inner)
        for group in _GROUPS
    }
    whole = sum(totals.values())
    left = 0.0
    for group, total in totals.items():
        colour = _GROUPS[group][1]
        axes.barh(0, total / whole, left=left, height=1, color=colour, edgecolor=_PAPER, lw=1.5)
        share = total / whole
        if share > 0.06:
            axes.text(
                left + share / 2,
                0,
                f"{share:.0%}",
                color=_PAPER,
                fontsize=8,
                fontweight="bold",
                ha="center",
                va="center",
            )
        left += share
    _legend(axes)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.5, 0.5)
    axes.axis("off")


def _legend(axes: Axes) -> None:
    at, above, where = 0.0, 2.1, axes.transAxes
    for name, colour in _GROUPS.values():
        axes.text(at, above, "■", color=colour, fontsize=9, va="center", transform=where)
        axes.text(at + 0.02, above, name, color=_FAINT, fontsize=8, va="center", transform=where)
        at += 0.045 + 0.0098 * len(name)


def _chart(axes: Axes, timeline: Timeline) -> None:
    axes.set_xlim(0, timeline.serving * 1.02)
    axes.set_ylim(len(timeline.bars) - 0.4, -0.6)
    for row, bar in enumerate(timeline.bars):
        _bar(axes, row, bar, timeline.serving)
    axes.axvline(timeline.serving, color=_INK, lw=0.9, ls=(0, (4, 3)), zorder=1)
    axes.text(
        timeline.serving,
        -0.75,
        "serving",
        color=_INK,
        fontsize=8.5,
        fontweight="bold",
        ha="center",
        va="bottom",
    )
    axes.xaxis.set_major_formatter(lambda ms, _: f"{ms / 1000:g} s")
    axes.tick_params(axis="x", colors=_FAINT, labelsize=8, length=0, pad=5)
    axes.tick_params(axis="y", length=0)
    axes.set_yticks([])
    axes.grid(axis="x", color=_RULE, lw=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _bar(axes: Axes, row: int, bar: Bar, end: float) -> None:
    colour = _GROUPS[bar.group][1]
    height = _INNER if bar.inner else _BAR
    width = max(bar.length, end * 0.0025)
    axes.add_patch(
        FancyBboxPatch(
            (bar.start, row - height / 2),
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={min(width / 2, end * 0.003)}",
            mutation_aspect=_ROW_INCHES * 110 / end,
            color=colour,
            alpha=0.55 if bar.inner else 1.0,
            lw=0,
            zorder=2,
        )
    )
    axes.text(
        -0.012,
        row,
        bar.name,
        color=_FAINT if bar.inner else _INK,
        fontsize=8.5,
        ha="right",
        va="center",
        transform=axes.get_yaxis_transform(),
    )
    shown = f"{bar.length:,.0f} ms" if bar.length >= 10 else f"{bar.length:.1f} ms"
    # On the left where it would cross the line of the moment from which the agent serves.
    fits = bar.start + width < end * 0.9
    axes.text(
        bar.start + width + end * 0.006 if fits else bar.start - end * 0.006,
        row,
        shown,
        color=_FAINT,
        fontsize=7.5,
        ha="left" if fits else "right",
        va="center",
    )
