"""`python -m tests.bench [PART…]`: measure and print; all parts by default."""

from __future__ import annotations

import importlib

import click

PARTS = (
    "start",
    "boot",
    "image",
    "stdio",
    "guest_stdio",
    "lossless",
    "lifecycle",
    "stats",
    "sandbox",
    "ttrpc",
    "observe",
)


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
def main(parts: tuple[str, ...]) -> None:
    """Run the parts named, or all of them. Nothing is judged: the machine may be busy."""
    for part in parts or PARTS:
        importlib.import_module(f"tests.bench.{part}").main()


if __name__ == "__main__":
    main(prog_name="python -m tests.bench")
