"""ttrpc for Python on gevent: a sans-IO core with a thin server and client around it.

PROTOCOL.md beside this module has the wire format, the limits and an example.
"""

from kuasar_agent.ttrpc.address import dial, listen
from kuasar_agent.ttrpc.call import ServerStream
from kuasar_agent.ttrpc.client import Client, Stub, connect
from kuasar_agent.ttrpc.client_stream import ClientStream
from kuasar_agent.ttrpc.context import Context, cancellable
from kuasar_agent.ttrpc.limits import Limits
from kuasar_agent.ttrpc.metadata import Metadata
from kuasar_agent.ttrpc.peer import Peer, same_user, vsock_host_only
from kuasar_agent.ttrpc.server import Server, ServerClosed
from kuasar_agent.ttrpc.status import (
    AlreadyExists,
    Cancelled,
    Code,
    ConnectionClosed,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ProtocolError,
    ResourceExhausted,
    StatusError,
    StreamClosed,
    StreamFull,
    Unavailable,
    Unimplemented,
    Unknown,
)

__all__ = [
    "AlreadyExists",
    "Cancelled",
    "Client",
    "ClientStream",
    "Code",
    "ConnectionClosed",
    "Context",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "Limits",
    "Metadata",
    "NotFound",
    "OutOfRange",
    "Peer",
    "PermissionDenied",
    "ProtocolError",
    "ResourceExhausted",
    "Server",
    "ServerClosed",
    "ServerStream",
    "StatusError",
    "StreamClosed",
    "StreamFull",
    "Stub",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "cancellable",
    "connect",
    "dial",
    "listen",
    "same_user",
    "vsock_host_only",
]
