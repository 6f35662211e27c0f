"""In the place of the standard library's ssl: this guest has no TLS.

pyroute2 imports ssl for a probe of TLS services and asyncio asks for these names when the import
succeeds. OpenSSL would take 5 MB of every guest's memory for that.
"""


class SSLError(OSError):
    """What every attempt to use TLS ends with."""


class SSLWantReadError(SSLError):
    """Named by asyncio."""


class SSLSyscallError(SSLError):
    """Named by asyncio."""


def create_default_context(*_: object, **__: object) -> None:
    """Refuse.

    Raises:
        SSLError: always.
    """
    raise SSLError("there is no TLS in this guest")
