"""Which sandbox a command talks to, and what is said when it does not answer."""

from __future__ import annotations

import contextlib
import functools
import re
import socket as stdlib_socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from gevent.socket import socket

from kuasar_agent.ttrpc import Client, Code, StatusError, dial
from kuasar_host.errors import DebugError
from kuasar_host.sandbox import TASK_PORT
from kuasar_host.sockets import short_path

CONSOLE_PORT = 1025
WITHIN = 5.0
"""Seconds in which a port has to answer."""

_FORM = re.compile(r"(?:[a-z]+\+)?(unix|vsock|hvsock)://(.+)")
_EXPECTED = "expected vsock://CID, hvsock://SOCKET or unix://DIRECTORY, with or without a port"


class Target:
    """A running sandbox: a directory as `kuasar-debug boot` or Kuasar makes it, or an address."""

    def __init__(self, directory: Path | None, address: str | None) -> None:
        """Raises DebugError unless exactly one of them is given and makes sense."""
        if (directory is None) == (address is None):
            raise DebugError("give either --dir or --address")
        if directory is not None:
            address = f"hvsock://{directory.absolute()}/task.vsock"
        match = _FORM.fullmatch(address or "")
        if match is None:
            raise DebugError(f"{address!r} is not an address: {_EXPECTED}")
        self._scheme, place = match.groups()
        separator = "/" if self._scheme == "unix" else ":"
        head, found, port = place.rpartition(separator)
        self._place = head if found and port.isdigit() else place.rstrip("/")
        if self._scheme == "vsock" and not self._place.isdigit():
            raise DebugError(f"{address!r} is not an address: {_EXPECTED}")
        self.directory = directory
        if directory is None and self._scheme == "hvsock":
            self.directory = Path(self._place).parent
        """Where the host keeps the sandbox's files, if that can be told."""

    def address(self, port: int) -> str:
        separator = "/" if self._scheme == "unix" else ":"
        return f"{self._scheme}://{self._place}{separator}{port}"

    def dial(self, port: int) -> socket:
        """A connection to a port of the guest. Raises DebugError that says why not."""
        address = self.address(port)
        try:
            if self._scheme == "hvsock":
                self._probe()
                with short_path(Path(self._place)) as name:
                    return dial(f"hvsock://{name}:{port}", WITHIN)
            return dial(address, WITHIN)
        except (OSError, StatusError) as error:
            raise DebugError(f"{address}: {_explain(port, error)}") from None

    def _probe(self) -> None:
        """Raises OSError when no hypervisor listens: `dial` would wait for one to come."""
        probe = stdlib_socket.socket(stdlib_socket.AF_UNIX)
        with probe, short_path(Path(self._place)) as name:
            probe.connect(name)

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """A ttrpc client; what goes wrong inside the block ends in one line."""
        try:
            with Client(self.dial(TASK_PORT)) as client:
                yield client
        except StatusError as error:
            raise DebugError(explain_status(error)) from None


def explain_status(error: StatusError) -> str:
    """One line for a status."""
    try:
        name = Code(error.code).name.replace("_", " ").lower()
    except ValueError:
        name = f"code {error.code}"
    if error.code == Code.UNIMPLEMENTED:
        return f"the agent does not offer this: {error}"
    if error.code == Code.UNAVAILABLE:
        return "the connection to the agent ended"
    return f"{name}: {error}"


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--dir` and `--address`; the command gets a Target first."""

    @functools.wraps(command)
    def with_target(directory: Path | None, address: str | None, **rest: Any) -> Any:
        return command(Target(directory, address), **rest)

    where = click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path, file_okay=False),
        help="of `kuasar-debug boot`, or of a sandbox of Kuasar with Cloud Hypervisor",
    )
    who = click.option(
        "--address",
        help="of the agent: vsock://CID:1024, hvsock:///DIR/task.vsock:1024, unix:///DIR/1024",
    )
    return where(who(with_target))


def _explain(port: int, error: OSError | StatusError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such socket"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there: the guest is gone"
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        return error.strerror or str(error)
    if port == CONSOLE_PORT:
        return "no answer; the debug console needs task.debug on the guest's kernel command line"
    return f"no answer within {WITHIN:.0f} s"
