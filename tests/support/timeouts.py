"""Seconds after which a test fails instead of waiting on. A run that passes reaches none."""

IN_PROCESS = 20.0
"""An event within the test's own process, or between it and one that serves it."""

TIMEOUT = 60.0
"""A call to an agent, on this host or in an emulated guest."""

GUEST = 240.0
"""A command in an emulated guest that works for a while; a microVM that boots."""
