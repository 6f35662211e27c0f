"""What a handler is told about its call."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from gevent.event import Event

from .metadata import Metadata, MetadataLike

if TYPE_CHECKING:
    from .peer import Peer

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


def cancellable(handler: _Handler) -> _Handler:
    """Mark a handler whose greenlet may be killed when its caller is gone or out of time.

    Other handlers run to their end and their late result is discarded: a change half made is
    worse than one made in vain.
    """
    handler.__ttrpc_cancellable__ = True  # type: ignore[attr-defined]
    return handler


class Context:
    """One call: its method, metadata, peer and deadline, and whether anyone still waits for it."""

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
        self.deadline = deadline
        """On time.monotonic()'s clock, or None."""
        self.is_cancelled = False
        self._metadata: Metadata | MetadataLike = metadata
        self._cancel_event: Event | None = None
        self._undelivered: Callable[[], None] | None = None

    @property
    def metadata(self) -> Metadata:
        """What the caller sent along."""
        if not isinstance(self._metadata, Metadata):
            self._metadata = Metadata(self._metadata)
        return self._metadata

    @property
    def cancelled(self) -> Event:
        """Set when the connection is gone or the deadline has passed."""
        if self._cancel_event is None:
            self._cancel_event = Event()
            if self.is_cancelled:
                self._cancel_event.set()
        return self._cancel_event

    def remaining(self) -> float | None:
        """Seconds to the deadline, not below 0; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    def on_undelivered(self, action: Callable[[], None]) -> None:
        """Have `action` called, once the handler has returned, if its reply does not leave.

        A reply has left when the kernel has all of it; whether the peer reads it nobody can tell.
        """
        self._undelivered = action

    def cancel(self) -> None:
        """Set `cancelled`. What else it means is up to whoever runs the handler."""
        self.is_cancelled = True
        if self._cancel_event is not None:
            self._cancel_event.set()
