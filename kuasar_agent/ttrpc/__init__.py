"""ttrpc for Python on gevent: a sans-IO core with a thin server and client around it.

PROTOCOL.md beside this module has the wire format, the limits and an example.

A name is imported from its module when it is first used: an agent needs the status exceptions
long before it needs sockets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kuasar_agent.ttrpc.address import dial as dial
    from kuasar_agent.ttrpc.address import listen as listen
    from kuasar_agent.ttrpc.call import ServerStream as ServerStream
    from kuasar_agent.ttrpc.client import Client as Client
    from kuasar_agent.ttrpc.client import Stub as Stub
    from kuasar_agent.ttrpc.client import connect as connect
    from kuasar_agent.ttrpc.client_stream import ClientStream as ClientStream
    from kuasar_agent.ttrpc.context import Context as Context
    from kuasar_agent.ttrpc.context import cancellable as cancellable
    from kuasar_agent.ttrpc.limits import Limits as Limits
    from kuasar_agent.ttrpc.metadata import Metadata as Metadata
    from kuasar_agent.ttrpc.peer import Peer as Peer
    from kuasar_agent.ttrpc.peer import same_user as same_user
    from kuasar_agent.ttrpc.peer import vsock_host_only as vsock_host_only
    from kuasar_agent.ttrpc.server import Server as Server
    from kuasar_agent.ttrpc.server import ServerClosed as ServerClosed
    from kuasar_agent.ttrpc.status import AlreadyExists as AlreadyExists
    from kuasar_agent.ttrpc.status import Cancelled as Cancelled
    from kuasar_agent.ttrpc.status import Code as Code
    from kuasar_agent.ttrpc.status import ConnectionClosed as ConnectionClosed
    from kuasar_agent.ttrpc.status import DeadlineExceeded as DeadlineExceeded
    from kuasar_agent.ttrpc.status import FailedPrecondition as FailedPrecondition
    from kuasar_agent.ttrpc.status import Internal as Internal
    from kuasar_agent.ttrpc.status import InvalidArgument as InvalidArgument
    from kuasar_agent.ttrpc.status import NotFound as NotFound
    from kuasar_agent.ttrpc.status import OutOfRange as OutOfRange
    from kuasar_agent.ttrpc.status import PermissionDenied as PermissionDenied
    from kuasar_agent.ttrpc.status import ProtocolError as ProtocolError
    from kuasar_agent.ttrpc.status import ResourceExhausted as ResourceExhausted
    from kuasar_agent.ttrpc.status import StatusError as StatusError
    from kuasar_agent.ttrpc.status import StreamClosed as StreamClosed
    from kuasar_agent.ttrpc.status import StreamFull as StreamFull
    from kuasar_agent.ttrpc.status import Unavailable as Unavailable
    from kuasar_agent.ttrpc.status import Unimplemented as Unimplemented
    from kuasar_agent.ttrpc.status import Unknown as Unknown

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
