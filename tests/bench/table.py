"""Tables for reading on a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
    """Print a table; its first column is flush left, the others flush right."""
    cells = [list(header), *([_text(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}\n")
    for number, (name, *values) in enumerate(cells):
        padded = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        print("  " + "  ".join([name.ljust(widths[0]), *padded]))
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}"
