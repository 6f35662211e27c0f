"""Statuses for exceptions that are no StatusError, chosen as Go's server does (server.go)."""

from __future__ import annotations

from gevent.timeout import Timeout
from greenlet import GreenletExit

from .status import (
    AlreadyExists,
    Cancelled,
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
    (Timeout, DeadlineExceeded),
)


def status_of(error: BaseException) -> StatusError:
    """Return the status for an exception of a handler; Unknown for an exception not listed."""
    if isinstance(error, StatusError):
        return error
    if isinstance(error, GreenletExit):
        return Cancelled("context canceled")
    for cls, status in _BY_TYPE:
        if isinstance(error, cls):
            return status(str(error))
    return Unknown(str(error) or type(error).__name__)
