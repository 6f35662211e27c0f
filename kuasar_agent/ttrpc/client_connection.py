"""The client's connection to a server."""

from __future__ import annotations

import socket
from collections.abc import Callable

from .client_core import ClientCore
from .core import Events
from .transport import Transport


class ClientConnection(Transport):
    """A transport that wakes the calls which wait for the server."""

    core: ClientCore

    def __init__(
        self, sock: socket.socket, core: ClientCore, on_close: Callable[[], object] | None
    ) -> None:
        self._on_close = on_close
        super().__init__(sock, core)

    def _handle(self, events: Events) -> None:
        for _event, stream in events:
            stream.owner.wake()

    def _on_closed(self) -> None:
        for stream in self.core.closed():
            stream.owner.wake()
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()
