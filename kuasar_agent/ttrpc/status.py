"""Status codes and the exceptions that carry them.

The numbers are those of gRPC (google.rpc.Code). An exception of this module that a handler raises
reaches the caller with its code, message and details unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage

__all__ = [
    "AlreadyExists",
    "Cancelled",
    "Code",
    "ConnectionClosed",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ProtocolError",
    "ResourceExhausted",
    "StatusError",
    "StreamClosed",
    "StreamFull",
    "Unavailable",
    "Unimplemented",
    "Unknown",
]


class Code(IntEnum):
    """The canonical codes. A peer may send other numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class StatusError(Exception):
    """The failure of a call, with its status. Each subclass has a code of its own."""

    code: int = Code.UNKNOWN
    _by_code: ClassVar[dict[int, type[StatusError]]] = {}

    def __init__(self, message: str = "", *, details: Sequence[AnyMessage] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # A subclass that inherits its code must not replace the class that `from_code` returns.
        cls._by_code.setdefault(cls.code, cls)

    def __str__(self) -> str:
        return self.message

    @staticmethod
    def from_code(code: int, message: str, details: Sequence[AnyMessage] = ()) -> StatusError:
        """Return the exception for a code from the wire; an unlisted code keeps its number."""
        cls = StatusError._by_code.get(code, StatusError)
        error = cls(message, details=details)
        error.code = code
        return error


class Cancelled(StatusError):
    """The caller, or the end of the connection, cancelled the call."""

    code = Code.CANCELLED


class Unknown(StatusError):
    """An error without a code of its own."""

    code = Code.UNKNOWN


class InvalidArgument(StatusError):
    """An argument is wrong, whatever the state of the server."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(StatusError):
    """The deadline passed before the call ended."""

    code = Code.DEADLINE_EXCEEDED


class NotFound(StatusError):
    """A thing that the request names does not exist."""

    code = Code.NOT_FOUND


class AlreadyExists(StatusError):
    """A thing to be created exists."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(StatusError):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(StatusError):
    """A limit or a quota is reached."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(StatusError):
    """The state of the server does not allow this now."""

    code = Code.FAILED_PRECONDITION


class OutOfRange(StatusError):
    """A position is behind the end."""

    code = Code.OUT_OF_RANGE


class Unimplemented(StatusError):
    """The server does not have this service or method."""

    code = Code.UNIMPLEMENTED


class Internal(StatusError):
    """An invariant of the server or of the protocol is broken."""

    code = Code.INTERNAL


class Unavailable(StatusError):
    """The server cannot be reached, or cannot serve now; the call may be repeated."""

    code = Code.UNAVAILABLE


class ConnectionClosed(Unavailable):
    """The connection is gone. The text is that of Go's ErrClosed."""

    def __init__(self, message: str = "ttrpc: closed") -> None:
        super().__init__(message)


class StreamClosed(FailedPrecondition):
    """A message was sent on a stream whose sending side is closed. Go's ErrStreamClosed."""

    def __init__(self, message: str = "ttrpc: stream closed") -> None:
        super().__init__(message)


class StreamFull(ResourceExhausted):
    """The receiver took no messages of the stream for too long. Go's ErrStreamFull."""

    def __init__(self, message: str = "ttrpc: stream buffer full") -> None:
        super().__init__(message)


class ProtocolError(Internal):
    """The peer broke a rule of the protocol, which ends the call."""
