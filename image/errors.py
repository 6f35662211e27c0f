"""What a failed build says."""

from __future__ import annotations


class BuildError(Exception):
    """The image cannot be built; the text is the one line that the user reads."""
