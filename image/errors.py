"""The error of a failed build, and its text for the user."""

from __future__ import annotations


class BuildError(Exception):
    """A reason why the image cannot be built; its text is the one line that the user reads."""


def explain(error: BuildError | OSError) -> str:
    """Return the line that tells the user what went wrong."""
    if isinstance(error, OSError):
        return f"image: {error.filename2 or error.filename or 'a file'}: {error.strerror}"
    return f"image: {error}"
