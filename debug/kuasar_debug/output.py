"""Output that several commands share."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click
import gevent

from kuasar_debug.tables import table

as_json = click.option("--json", "as_json", is_flag=True, help="one JSON document per line")


def print_rows(
    rows: Sequence[dict[str, Any]], columns: Sequence[str], as_json: bool = False
) -> None:
    """Print a table, or one JSON document for each row."""
    if not as_json:
        click.echo(table(columns, rows))
        return
    for row in rows:
        click.echo(json.dumps(row))


def end_quietly_on_interrupt() -> None:
    """Make Ctrl-C end the command with the shells' status for it, and no message."""
    gevent.signal_handler(signal.SIGINT, sys.exit, 128 + signal.SIGINT)
