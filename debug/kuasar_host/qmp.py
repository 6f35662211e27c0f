"""A client of QEMU's monitor (QMP): one command at a time; events between answers are kept.

Source: QEMU's docs/interop/qmp-spec.rst. Messages are JSON objects, one a line.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import gevent
from gevent.socket import AF_UNIX, socket

from kuasar_host.sockets import short_path


class QmpError(Exception):
    """A command that QEMU refused, or a monitor that QEMU closed."""


class Qmp:
    """A connection to the monitor; `with` closes it."""

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        """Connect and negotiate; each answer may take `timeout` seconds, the later ones too.

        Raises:
            OSError: no QEMU listens.
            TimeoutError: QEMU does not answer, or serves another client.
            QmpError: QEMU refuses the connection.

        Blocks: the greenlet.
        """
        self._events: deque[dict[str, Any]] = deque()
        self._input = bytearray()
        self._socket = socket(AF_UNIX)
        try:
            self._socket.settimeout(timeout)
            with short_path(path) as name:
                self._socket.connect(name)
            self._read()
            self.execute("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its value; an underscore in an argument's name means a dash.

        Raises:
            QmpError: QEMU refused it or is gone.
            TimeoutError: QEMU does not answer.

        Blocks: the greenlet.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        request = {"execute": command, "arguments": named}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except ConnectionError as error:
            raise QmpError("QEMU closed its monitor") from error
        while True:
            message = self._read()
            if "event" in message:
                self._events.append(message)
            elif "error" in message:
                raise QmpError(f"{command}: {message['error'].get('desc', message['error'])}")
            else:
                return message.get("return")

    def wait_event(self, name: str, timeout: float) -> dict[str, Any]:
        """Return the next event of that name and drop those before it.

        Raises:
            TimeoutError: none came within `timeout` seconds.
            QmpError: QEMU is gone.

        Blocks: the greenlet.
        """
        with gevent.Timeout(timeout, TimeoutError(f"no {name} event from QEMU")):
            while True:
                message = self._events.popleft() if self._events else self._read()
                if message.get("event") == name:
                    return message

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._input:
            try:
                data = self._socket.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                raise QmpError("QEMU closed its monitor")
            self._input += data
        line, _, rest = self._input.partition(b"\n")
        self._input = rest
        message: dict[str, Any] = json.loads(line)
        return message
