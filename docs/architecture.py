"""Print the picture of the layers: `python docs/architecture.py > docs/architecture.svg`.

Every text stands on a box with a fill of its own, so that the picture is legible on GitHub's dark
and light pages.
"""

from __future__ import annotations

import math
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

WIDTH = 830
MARGIN = 12
"""Between a side's frame and its layers."""
GAP = 8
IN_A_ROW = 4
"""Parts of a layer that stand side by side, at most."""
TITLES = 104
"""Width of the column with the layers' titles."""
BETWEEN = 40
"""Height of the arrow between the two sides."""
LINE = 15
CHARACTER = 6.6
"""Pixels of a character of a description, in a wide font."""

STYLE = """
text { font: 12px ui-sans-serif, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
text { fill: #1f2328; }
.side { font-size: 14px; font-weight: 600; }
.layer { fill: #0a3069; font-weight: 600; }
.name { font: 600 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.frame { fill: #f6f8fa; stroke: #8c959f; }
.band { fill: #ddf4ff; stroke: #80ccff; }
.part { fill: #ffffff; stroke: #afb8c1; }
.arrow { stroke: #57606a; stroke-width: 2; fill: none; }
"""


class Box(NamedTuple):
    """A rectangle in pixels."""

    x: float
    y: float
    width: float
    height: float

    def draw(self, kind: str) -> str:
        return (
            f'<rect class="{kind}" x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" '
            f'height="{self.height:g}" rx="6"/>'
        )


def main() -> None:
    sides = tomllib.loads(Path(__file__).with_name("layers.toml").read_text())
    host, below = draw_side(sides["host"], 1)
    guest, end = draw_side(sides["guest"], below + BETWEEN)
    label = "ttrpc on vsock port 1024, the shell on 1025"
    height = round(end + 1)
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        "<title>The layers of kuasar-agent: each imports only from those below it</title>",
        f"<style>{STYLE}</style>",
        *host,
        *draw_connection(label, below),
        *guest,
        "</svg>",
        sep="\n",
    )


def draw_side(side: dict[str, Any], top: float) -> tuple[list[str], float]:
    """Return the elements of one side below `top`, the highest layer first, and its lower edge."""
    elements = [text("side", 1 + MARGIN, top + 24, side["title"])]
    y = top + 36
    for layer in reversed(side["layer"]):
        row, height = draw_layer(layer, y)
        elements += row
        y += height + GAP
    frame = Box(1, top, WIDTH - 2, y - GAP + MARGIN - top)
    return [frame.draw("frame"), *elements], frame.y + frame.height


def draw_layer(layer: dict[str, Any], top: float) -> tuple[list[str], float]:
    """Return the elements of a layer, its parts in rows, and its height."""
    parts = list(layer["parts"].items())
    rows = math.ceil(len(parts) / IN_A_ROW)
    per_row = math.ceil(len(parts) / rows)
    elements, y = [], top + GAP
    for start in range(0, len(parts), per_row):
        row, height = draw_parts(dict(parts[start : start + per_row]), y)
        elements += row
        y += height + GAP
    band = Box(1 + MARGIN, top, WIDTH - 2 - 2 * MARGIN, y - top)
    title = text("layer", band.x + GAP, top + band.height / 2 + 4, layer["title"])
    return [band.draw("band"), title, *elements], band.height


def draw_parts(parts: dict[str, str], top: float) -> tuple[list[str], float]:
    """Return the elements of parts that stand side by side, and their height."""
    left = 1 + MARGIN + TITLES
    width = (WIDTH - 1 - MARGIN - left) / len(parts) - GAP
    lines = {name.removeprefix("kuasar_agent."): wrap(what, width) for name, what in parts.items()}
    height = LINE * (1 + max(map(len, lines.values()))) + 9
    elements = []
    for number, (name, description) in enumerate(lines.items()):
        box = Box(left + number * (width + GAP), top, width, height)
        elements += [box.draw("part"), text("name", box.x + 8, box.y + LINE + 1, name)]
        for count, line in enumerate(description, 2):
            elements.append(text("what", box.x + 8, box.y + LINE * count + 1, line))
    return elements, height


def draw_connection(label: str, top: float) -> Iterator[str]:
    """Yield an arrow with two heads and its label on a box, over `BETWEEN` pixels."""
    x, bottom = WIDTH / 2, top + BETWEEN
    yield f'<path class="arrow" d="M{x:g} {top + 3:g}V{bottom - 3:g}"/>'
    for tip, base in ((top + 2, top + 9), (bottom - 2, bottom - 9)):
        yield f'<path class="arrow" d="M{x - 5:g} {base:g}L{x:g} {tip:g}L{x + 5:g} {base:g}"/>'
    width = len(label) * CHARACTER + 16
    yield Box(x - width / 2, top + 9, width, 22).draw("frame")
    yield text("what", x, top + 24, label, anchor="middle")


def wrap(words: str, width: float) -> list[str]:
    return textwrap.wrap(words, int((width - 16) / CHARACTER))


def text(kind: str, x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'


if __name__ == "__main__":
    main()
