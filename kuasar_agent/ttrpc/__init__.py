"""ttrpc for Python on gevent: a sans-IO core with a thin server and client around it.

PROTOCOL.md beside this module has the wire format, the limits and an example.

A name is imported from its module when it is first used: an agent needs the status exceptions
long before it needs sockets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .address import dial as dial
    from .address import listen as listen
    from .call import ServerStream as ServerStream
    from .client import Client as Client
    from .client import Stub as Stub
    from .client import connect as connect
    from .client_stream import ClientStream as ClientStream
    from .context import Context as Context
    from .context import cancellable as cancellable
    from .limits import Limits as Limits
    from .metadata import Metadata as Metadata
    from .peer import Peer as Peer
    from .peer import same_user as same_user
    from .peer import vsock_host_only as vsock_host_only
    from .server import Server as Server
    from .server import ServerClosed as ServerClosed
    from .status import AlreadyExists as AlreadyExists
    from .status import Cancelled as Cancelled
    from .status import Code as Code
    from .status import ConnectionClosed as ConnectionClosed
    from .status import DeadlineExceeded as DeadlineExceeded
    from .status import FailedPrecondition as FailedPrecondition
    from .status import Internal as Internal
    from .status import InvalidArgument as InvalidArgument
    from .status import NotFound as NotFound
    from .status import OutOfRange as OutOfRange
    from .status import PermissionDenied as PermissionDenied
    from .status import ProtocolError as ProtocolError
    from .status import ResourceExhausted as ResourceExhausted
    from .status import StatusError as StatusError
    from .status import StreamClosed as StreamClosed
    from .status import StreamFull as StreamFull
    from .status import Unavailable as Unavailable
    from .status import Unimplemented as Unimplemented
    from .status import Unknown as Unknown

_MODULES = {
    "address": (
        "dial",
        "listen",
    ),
    "call": ("ServerStream",),
    "client": (
        "Client",
        "Stub",
        "connect",
    ),
    "client_stream": ("ClientStream",),
    "context": (
        "Context",
        "cancellable",
    ),
    "limits": ("Limits",),
    "metadata": ("Metadata",),
    "peer": (
        "Peer",
        "same_user",
        "vsock_host_only",
    ),
    "server": (
        "Server",
        "ServerClosed",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Whatever is not listed above is a status."""
    value = getattr(import_module(f"{__name__}.{_HOME.get(name, 'status')}"), name)
    globals()[name] = value
    return value
