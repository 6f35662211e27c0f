"""The address of a guest: where its ports are, connections to them, and errors in one line."""

from __future__ import annotations

import contextlib
import re
import socket as stdlib_socket
from collections.abc import Iterator
from pathlib import Path

from gevent.socket import socket

from kuasar_agent.ttrpc import Client, Code, StatusError, dial
from kuasar_host.errors import HostError
from kuasar_host.services import DEBUG_PORT, TASK_PORT
from kuasar_host.sockets import short_path

WITHIN = 5.0
"""Seconds in which a port has to answer."""

_FORM = re.compile(r"(?:[a-z]+\+)?(unix|vsock|hvsock)://(.+)")
_EXPECTED = "expected vsock://CID, hvsock://SOCKET or unix://DIRECTORY, with or without a port"


class GuestAddress:
    """A guest, by an address of its agent or of any other of its ports.

    vsock://CID         the host's own vsock
    hvsock://SOCKET     hybrid vsock, as Cloud Hypervisor and `kuasar_host.microvm` offer it
    unix://DIRECTORY    an agent that runs as a process, whose port N is the socket DIRECTORY/N
    """

    def __init__(self, text: str) -> None:
        """Read an address; a port at its end is ignored.

        Raises:
            HostError: `text` is not an address.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise HostError(f"{text!r} is not an address: {_EXPECTED}")
        self._scheme, place = match.groups()
        head, found, port = place.rpartition(self._separator())
        self._place = head if found and port.isdigit() else place.rstrip("/")
        if self._scheme == "vsock" and not self._place.isdigit():
            raise HostError(f"{text!r} is not an address: {_EXPECTED}")
        self.directory = Path(self._place).parent if self._scheme == "hvsock" else None
        """Directory of the sandbox, if the address names a file in it."""

    @classmethod
    def of_directory(cls, directory: Path) -> GuestAddress:
        """Return the address of the guest whose sandbox has this directory."""
        return cls(f"hvsock://{directory.absolute()}/task.vsock")

    def port(self, number: int) -> str:
        """Return the address of a port."""
        return f"{self._scheme}://{self._place}{self._separator()}{number}"

    def dial(self, port: int) -> socket:
        """Connect to a port of the guest.

        Raises:
            HostError: the port does not answer within WITHIN.

        Blocks: the greenlet.
        """
        address = self.port(port)
        try:
            if self._scheme == "hvsock":
                self._probe()
                with short_path(Path(self._place)) as name:
                    return dial(f"hvsock://{name}:{port}", WITHIN)
            return dial(address, WITHIN)
        except (OSError, StatusError) as error:
            raise HostError(f"{address}: {_explain(port, error)}") from None

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """Give a ttrpc client of the agent.

        Raises:
            HostError: the agent does not answer, or a call inside the block failed.
        """
        try:
            with Client(self.dial(TASK_PORT)) as client:
                yield client
        except StatusError as error:
            raise HostError(explain_status(error)) from None

    def _separator(self) -> str:
        return "/" if self._scheme == "unix" else ":"

    def _probe(self) -> None:
        """Raise OSError if no hypervisor listens: `dial` would wait for one."""
        probe = stdlib_socket.socket(stdlib_socket.AF_UNIX)
        with probe, short_path(Path(self._place)) as name:
            probe.connect(name)


def explain_status(error: StatusError) -> str:
    """Return one line for the status of a failed call."""
    if error.code == Code.UNIMPLEMENTED:
        return f"the agent does not offer this: {error}"
    if error.code == Code.UNAVAILABLE:
        return "the connection to the agent ended"
    try:
        name = Code(error.code).name.replace("_", " ").lower()
    except ValueError:
        name = f"code {error.code}"
    return f"{name}: {error}"


def _explain(port: int, error: OSError | StatusError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such socket"
    if isinstance(error, ConnectionRefusedError):
        return "no hypervisor listens there: the guest is gone"
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return error.strerror or str(error)
    if port == DEBUG_PORT:
        return "no answer; the debug console needs task.debug on the guest's kernel command line"
    return f"no answer within {WITHIN:.0f} s"
