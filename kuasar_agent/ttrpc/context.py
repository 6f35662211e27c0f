"""What a handler knows of its call besides the request."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import gevent.event

Handler = TypeVar("Handler", bound=Callable[..., Any])

_CANCELLABLE = "__ttrpc_cancellable__"


class Metadata:
    """Key-value pairs sent with a call; keys compare without case, order is kept."""

    def __init__(self, pairs: Sequence[tuple[str, str]] = ()) -> None:
        self.pairs = tuple((key.lower(), value) for key, value in pairs)

    def get_all(self, key: str) -> list[str]:
        key = key.lower()
        return [value for name, value in self.pairs if name == key]

    def get(self, key: str) -> str | None:
        """The first value of a key."""
        return next(iter(self.get_all(key)), None)


class Context:
    """One call, as its handler sees it."""

    def __init__(
        self, method: str, metadata: Metadata, peer: object, deadline: float | None
    ) -> None:
        self.method = method
        """`/service/Method`."""
        self.metadata = metadata
        self.peer = peer
        """The address the connection came from."""
        self.deadline = deadline
        """On time.monotonic()'s clock, in seconds; None when the caller waits for ever."""
        self.cancelled = gevent.event.Event()
        """Set when the caller's connection ended or the deadline passed."""

    def remaining(self) -> float | None:
        """Seconds until the deadline, not below 0; None without one."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - time.monotonic())


def cancellable(handler: Handler) -> Handler:
    """Mark a handler that may be killed at any point once its call is cancelled.

    Others run to their end, and their late result is dropped: a call that changes something must
    not stop half-way because a caller hung up.
    """
    setattr(handler, _CANCELLABLE, True)
    return handler


def is_cancellable(handler: Callable[..., Any]) -> bool:
    return getattr(handler, _CANCELLABLE, False)
