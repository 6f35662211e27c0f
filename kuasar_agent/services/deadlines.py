"""The deadline that a call gives to the domain."""

from __future__ import annotations

from kuasar_agent.ttrpc import Context

_ANSWER_WITHIN = 1.0
"""Seconds before the caller's deadline at which waiting ends, so that the error still arrives."""


def deadline_of(ctx: Context) -> float | None:
    """Return the time on time.monotonic()'s clock at which waiting must end; None for no limit."""
    return None if ctx.deadline is None else ctx.deadline - _ANSWER_WITHIN
