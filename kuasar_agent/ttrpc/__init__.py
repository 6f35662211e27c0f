"""ttrpc for Python on gevent: a sans-IO core with a thin server and client around it."""

from kuasar_agent.ttrpc.address import dial, listen
from kuasar_agent.ttrpc.client import Client, ConnectionClosed, Stub, connect
from kuasar_agent.ttrpc.context import Context, Metadata, cancellable
from kuasar_agent.ttrpc.server import Server
from kuasar_agent.ttrpc.status import (
    AlreadyExists,
    Cancelled,
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    StatusError,
    Unavailable,
    Unimplemented,
    Unknown,
)

__all__ = [
    "AlreadyExists",
    "Cancelled",
    "Client",
    "Code",
    "ConnectionClosed",
    "Context",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "Metadata",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "Server",
    "StatusError",
    "Stub",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "cancellable",
    "connect",
    "dial",
    "listen",
]
