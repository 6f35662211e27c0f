"""ttrpc for Python on gevent: a sans-IO core with a thin server and client around it.

A name is imported from its module when it is first used: PID 1 needs the status exceptions long
before it needs sockets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kuasar_agent.ttrpc.address import dial as dial
    from kuasar_agent.ttrpc.address import listen as listen
    from kuasar_agent.ttrpc.client import Client as Client
    from kuasar_agent.ttrpc.client import ConnectionClosed as ConnectionClosed
    from kuasar_agent.ttrpc.client import Stub as Stub
    from kuasar_agent.ttrpc.client import connect as connect
    from kuasar_agent.ttrpc.context import Context as Context
    from kuasar_agent.ttrpc.context import Metadata as Metadata
    from kuasar_agent.ttrpc.context import cancellable as cancellable
    from kuasar_agent.ttrpc.server import Server as Server
    from kuasar_agent.ttrpc.status import AlreadyExists as AlreadyExists
    from kuasar_agent.ttrpc.status import Cancelled as Cancelled
    from kuasar_agent.ttrpc.status import Code as Code
    from kuasar_agent.ttrpc.status import DeadlineExceeded as DeadlineExceeded
    from kuasar_agent.ttrpc.status import FailedPrecondition as FailedPrecondition
    from kuasar_agent.ttrpc.status import Internal as Internal
    from kuasar_agent.ttrpc.status import InvalidArgument as InvalidArgument
    from kuasar_agent.ttrpc.status import NotFound as NotFound
    from kuasar_agent.ttrpc.status import PermissionDenied as PermissionDenied
    from kuasar_agent.ttrpc.status import ResourceExhausted as ResourceExhausted
    from kuasar_agent.ttrpc.status import StatusError as StatusError
    from kuasar_agent.ttrpc.status import Unavailable as Unavailable
    from kuasar_agent.ttrpc.status import Unimplemented as Unimplemented
    from kuasar_agent.ttrpc.status import Unknown as Unknown

_MODULES = {
    "address": ("dial", "listen"),
    "client": ("Client", "ConnectionClosed", "Stub", "connect"),
    "context": ("Context", "Metadata", "cancellable"),
    "server": ("Server",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Whatever is not listed above is a status."""
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'status')}"), name)
