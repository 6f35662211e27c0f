"""What a failed build says."""

from __future__ import annotations


class BuildError(Exception):
    """The image cannot be built; the text is the one line that the user reads."""


def explain(error: BuildError | OSError) -> str:
    """The one line that says what went wrong."""
    if isinstance(error, OSError):
        return f"image: {error.filename2 or error.filename or 'a file'}: {error.strerror}"
    return f"image: {error}"
