"""The far ends of a process's streams: a `Sink` takes its output, a `Source` gives it input."""

from __future__ import annotations

from typing import Protocol


class Sink:
    """The far end of an output stream; as it stands, one that takes all and shows it nowhere."""

    moment = 0.0
    """Seconds after the last byte for which a reader may not have it although `taken` says so."""

    @property
    def taken(self) -> bool:
        """Whether the reader has all that was written, as well as the transport can tell."""
        return True

    @property
    def progress(self) -> int:
        """A number that changes when the reader takes bytes."""
        return 0

    @property
    def slow_to_tell(self) -> bool:
        """Whether a reader is there that takes far more than a moment's bytes before it says so."""
        return False

    def write(self, data: bytes) -> None:
        """Deliver bytes to the transport. Blocks: the greenlet, until it has taken all."""

    def finish(self) -> None:
        """End the stream. Blocks: the greenlet, until the reader can see the end."""

    def keep(self, data: bytes) -> bool:
        """Take bytes that came too late for `write`, before `close`; False if they are lost."""
        return False

    def close(self) -> None:
        """Give everything back; the rest of the output is of no use. May be called again."""


class Source(Protocol):
    """The far end of an input stream."""

    def read(self) -> bytes:
        """Return the next bytes; none at the end. An exception thrown into it loses no byte.

        Blocks: the greenlet.
        """

    def finish(self) -> None:
        """Refuse further input: the process reads no more."""

    def close(self) -> None:
        """Give everything back: the process is deleted. May be called again."""
