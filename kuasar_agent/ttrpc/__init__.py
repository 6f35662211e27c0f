"""ttrpc for Python on gevent: protocol cores without IO, and a server and a client around them.

README.md has the API, PROTOCOL.md the wire format and the limits.

The public names are those in `__all__` of the modules below. Each is imported on first use, because
importing sockets and the event loop takes time that a program may not have at its start.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# ruff: noqa: F403
if TYPE_CHECKING:
    from .address import *
    from .client import *
    from .client_stream import *
    from .context import *
    from .limits import *
    from .metadata import *
    from .peer import *
    from .server import *
    from .server_stream import *
    from .status import *

# In the order in which they are searched: first those that import little.
_MODULES = (
    "status",
    "limits",
    "metadata",
    "peer",
    "context",
    "server_stream",
    "server",
    "address",
    "client_stream",
    "client",
)


def __getattr__(name: str) -> Any:
    if name == "__all__":
        value: Any = sorted(each for module in _MODULES for each in _public(module))
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        value = _find(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})


def _find(name: str) -> Any:
    for module in _MODULES:
        if name in _public(module):
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _public(module: str) -> list[str]:
    names: list[str] = import_module(f".{module}", __name__).__all__
    return names
