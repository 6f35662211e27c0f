"""Which status an ordinary exception of a handler becomes."""

from __future__ import annotations

import gevent

from kuasar_agent.ttrpc.status import (
    AlreadyExists,
    DeadlineExceeded,
    NotFound,
    OutOfRange,
    PermissionDenied,
    StatusError,
    Unknown,
)

_BY_TYPE: tuple[tuple[type[BaseException], type[StatusError]], ...] = (
    (FileNotFoundError, NotFound),
    (FileExistsError, AlreadyExists),
    (PermissionError, PermissionDenied),
    (EOFError, OutOfRange),
    (gevent.Timeout, DeadlineExceeded),
)


def to_status(error: BaseException) -> StatusError:
    """A StatusError stays as it is; others get a code by their type, and their text."""
    if isinstance(error, StatusError):
        return error
    text = str(error) or type(error).__name__
    for kind, status in _BY_TYPE:
        if isinstance(error, kind):
            return status(text)
    return Unknown(text)
