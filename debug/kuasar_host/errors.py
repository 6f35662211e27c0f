"""What ends a command with one clear line."""

from __future__ import annotations

import click


class DebugError(click.ClickException):
    """Shown as `Error: <message>`; the command exits with 1."""
