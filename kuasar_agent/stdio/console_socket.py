"""The console socket: how the OCI runtime hands over the master of a container's terminal.

https://github.com/opencontainers/runc/blob/main/docs/terminals.md. The runtime connects to the
socket given as `--console-socket` and sends one message, the terminal's name, with the descriptor.
"""

from __future__ import annotations

import array
import os
import struct
import termios
from contextlib import suppress
from fcntl import ioctl
from socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, SCM_RIGHTS, SOL_SOCKET

import gevent
from gevent.socket import AF_UNIX, SOCK_STREAM, socket

from kuasar_agent.errors import DeadlineExceeded, Unknown

RUN = "/run"
HAND_OVER = 10.0
"""Seconds for the runtime to send the terminal after it has ended well."""

_MOST_FDS = 8
_NAME_LIMIT = 4096
_LFLAG, _CC = 3, 6


class ConsoleSocket:
    """A socket that receives a terminal, and then the terminal."""

    def __init__(self, run: str = RUN) -> None:
        self._directory = f"{run}/pty{os.urandom(16).hex()}"
        self.socket_path = f"{self._directory}/pty.sock"
        self.master: int | None = None
        self._size: tuple[int, int] | None = None
        os.mkdir(self._directory, 0o711)
        self._listener = socket(AF_UNIX, SOCK_STREAM)
        self._listener.bind(self.socket_path)
        self._listener.listen(1)
        self._receiver = gevent.spawn(self._receive)

    def descriptors(self) -> list[int]:
        return [] if self.master is None else [self.master]

    def wait(self, within: float = HAND_OVER) -> int:
        """Return the terminal's master, which this object owns.

        Raises:
            DeadlineExceeded: the runtime has sent none `within` seconds.
            Unknown: it has sent something else.
        Blocks: the greenlet.
        """
        self._receiver.join(within)
        if not self._receiver.ready():
            raise DeadlineExceeded(f"the runtime sent no terminal within {within:.0f} s")
        error: BaseException | None = self._receiver.value
        if error is not None:
            raise Unknown(f"the runtime sent no terminal: {error}")
        self._remove_socket()
        assert self.master is not None
        return self.master

    def resize(self, width: int, height: int) -> None:
        """Set the size in characters, now or when the terminal has come."""
        self._size = width, height
        if self.master is not None:
            size = struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0)
            with suppress(OSError):
                ioctl(self.master, termios.TIOCSWINSZ, size)

    def close(self) -> None:
        """Give everything back; may be called at any time, more than once."""
        self._receiver.kill()
        self._remove_socket()
        if self.master is not None:
            os.close(self.master)
            self.master = None

    def _receive(self) -> Exception | None:
        """Receive the terminal and return the error, if any, for `wait` to report."""
        try:
            peer, _ = self._listener.accept()
            with peer:
                space = CMSG_SPACE(_MOST_FDS * array.array("i").itemsize)
                _, control, _, _ = peer.recvmsg(_NAME_LIMIT, space, MSG_CMSG_CLOEXEC)
            first, *others = _descriptors(control)
            for fd in others:
                os.close(fd)
            if not os.isatty(first):
                os.close(first)
                raise ValueError("the descriptor is no terminal")
        except (OSError, ValueError) as error:
            return error
        self.master = first
        if self._size is not None:
            self.resize(*self._size)
        return None

    def _remove_socket(self) -> None:
        self._listener.close()
        with suppress(FileNotFoundError):
            os.unlink(self.socket_path)
        with suppress(FileNotFoundError):
            os.rmdir(self._directory)


def end_of_file(master: int, *, in_line: bool) -> bytes:
    """Return the characters that mean the end of input: none in raw mode, which has none.

    Within a line the first one only hands over the characters that were typed (termios(3), VEOF).
    """
    try:
        attributes = termios.tcgetattr(master)
    except termios.error:
        return b""
    if not attributes[_LFLAG] & termios.ICANON:
        return b""
    character: bytes = attributes[_CC][termios.VEOF]
    return character * 2 if in_line else character


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors of a message. Raises: ValueError when there is none."""
    fds = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if not fds:
        raise ValueError("no descriptor came with the message")
    return list(fds)
