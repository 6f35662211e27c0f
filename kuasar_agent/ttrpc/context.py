"""The context that a handler gets with its call."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from gevent.event import Event

from .metadata import Metadata, MetadataLike

if TYPE_CHECKING:
    from .peer import Peer

__all__ = ["Context", "cancellable"]

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


def cancellable(handler: _Handler) -> _Handler:
    """Mark a handler whose greenlet may be killed when its client is gone or its deadline passes.

    Other handlers run to their end and their result is discarded: killed in the middle, a handler
    that changes something would leave a change half made.
    """
    handler.__ttrpc_cancellable__ = True  # type: ignore[attr-defined]
    return handler


class Context:
    """The method, metadata, peer and deadline of a call, and whether its client still waits."""

    __slots__ = (
        "_cancel_event",
        "_metadata",
        "_undelivered",
        "deadline",
        "is_cancelled",
        "method",
        "peer",
    )

    def __init__(
        self,
        method: str,
        *,
        metadata: MetadataLike = (),
        peer: Peer | None = None,
        deadline: float | None = None,
    ) -> None:
        self.method = method
        """`/service/Method`."""
        self.peer = peer
        """The client; None in tests of a handler."""
        self.deadline = deadline
        """On the clock of time.monotonic(); None without a deadline."""
        self.is_cancelled = False
        """True once the connection is gone or the deadline has passed."""
        self._metadata: Metadata | MetadataLike = metadata
        self._cancel_event: Event | None = None
        self._undelivered: Callable[[], None] | None = None

    @property
    def metadata(self) -> Metadata:
        """The metadata of the request."""
        if not isinstance(self._metadata, Metadata):
            self._metadata = Metadata(self._metadata)
        return self._metadata

    @property
    def cancelled(self) -> Event:
        """An event that is set when `is_cancelled` becomes true."""
        if self._cancel_event is None:
            self._cancel_event = Event()
            if self.is_cancelled:
                self._cancel_event.set()
        return self._cancel_event

    def remaining(self) -> float | None:
        """Return the seconds to the deadline, at least 0; None without a deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    def on_undelivered(self, action: Callable[[], None]) -> None:
        """Have `action` called, after the handler has returned, if its reply cannot be sent.

        A reply counts as sent when the kernel has all of it. The protocol does not tell whether
        the client reads it.
        """
        self._undelivered = action

    def cancel(self) -> None:
        """Set `is_cancelled` and `cancelled`."""
        self.is_cancelled = True
        if self._cancel_event is not None:
            self._cancel_event.set()
