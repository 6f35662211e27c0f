"""Status codes and the exceptions that carry them.

The numbers are gRPC's (google.rpc.Code); ttrpc uses the same ones. An exception of this module
raised anywhere below a handler reaches the caller with its code, message and details unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage


class Code(IntEnum):
    """The canonical codes; a peer may send a number that is not listed here."""

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
    """A call failed with a status; subclasses fix the code."""

    code: int = Code.UNKNOWN
    _by_code: ClassVar[dict[int, type[StatusError]]] = {}

    def __init__(self, message: str = "", *, details: Sequence[AnyMessage] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # A more special exception with its parent's code must not take the parent's place.
        cls._by_code.setdefault(cls.code, cls)

    def __str__(self) -> str:
        return self.message

    @staticmethod
    def from_code(code: int, message: str, details: Sequence[AnyMessage] = ()) -> StatusError:
        """The exception for a code from the wire; an unlisted code keeps its number."""
        cls = StatusError._by_code.get(code, StatusError)
        error = cls(message, details=details)
        error.code = code
        return error


class Cancelled(StatusError):
    code = Code.CANCELLED


class Unknown(StatusError):
    code = Code.UNKNOWN


class InvalidArgument(StatusError):
    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(StatusError):
    code = Code.DEADLINE_EXCEEDED


class NotFound(StatusError):
    code = Code.NOT_FOUND


class AlreadyExists(StatusError):
    code = Code.ALREADY_EXISTS


class PermissionDenied(StatusError):
    code = Code.PERMISSION_DENIED


class ResourceExhausted(StatusError):
    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(StatusError):
    code = Code.FAILED_PRECONDITION


class OutOfRange(StatusError):
    code = Code.OUT_OF_RANGE


class Unimplemented(StatusError):
    code = Code.UNIMPLEMENTED


class Internal(StatusError):
    code = Code.INTERNAL


class Unavailable(StatusError):
    code = Code.UNAVAILABLE


class ConnectionClosed(Unavailable):
    """The connection is gone; the words are Go's ErrClosed."""

    def __init__(self, message: str = "ttrpc: closed") -> None:
        super().__init__(message)


class StreamClosed(FailedPrecondition):
    """A send on a stream whose sending side has ended; the words are Go's ErrStreamClosed."""

    def __init__(self, message: str = "ttrpc: stream closed") -> None:
        super().__init__(message)


class StreamFull(ResourceExhausted):
    """Nobody took the stream's messages; the words are Go's ErrStreamFull."""

    def __init__(self, message: str = "ttrpc: stream buffer full") -> None:
        super().__init__(message)


class ProtocolError(Internal):
    """The peer broke a rule that a stream cannot outlive."""
