"""Sessions: a shell with a second connection, which sets its window size and learns its status.

`kuasar-debug shell` opens the control connection first:

    client  KSR_MODE session <rows> <cols> <term>
    agent   session <token>
    client  size <rows> <cols>       whenever its window changes
    agent   exit <status>            when the shell has ended

The second connection, `KSR_MODE attach <token>`, is the terminal. A session without its control
connection can no longer be attached to.
"""

from __future__ import annotations

import os
import re

import gevent
import gevent.event
from gevent.socket import socket

from kuasar_agent.debug_server.first_line import window_size
from kuasar_agent.debug_server.terminal import Terminal

_LINE_LIMIT = 256
_SIZE = re.compile(rb"size ([0-9]{1,5}) ([0-9]{1,5})")


class Session:
    """A shell's window size before it starts, and its exit status after it has ended."""

    def __init__(self, rows: int, cols: int, term: str) -> None:
        self.rows, self.cols, self.term = rows, cols, term
        self.terminal: Terminal | None = None
        """The terminal of the shell, once a connection has attached."""
        self.status: int | None = None
        self.over = gevent.event.Event()
        """Set when the shell has ended or the control connection is closed."""

    def end(self, status: int) -> None:
        """Record the exit status of the shell."""
        self.status = status
        self.over.set()

    def resize(self, rows: int, cols: int) -> None:
        """Set the window size, of the terminal too if there is one."""
        self.rows, self.cols = rows, cols
        if self.terminal is not None and self.terminal.fd >= 0:
            self.terminal.setwinsize(rows, cols)


class Sessions:
    """The sessions that wait for their terminal, by token."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Session] = {}

    def take(self, token: bytes) -> Session | None:
        """Return the session of a token, which is then used up; None if there is none."""
        return self._waiting.pop(token, None)

    def control(self, peer: socket, rest: bytes, session: Session) -> None:
        """Serve the control connection of a new session until either end closes it.

        Raises:
            OSError: the connection failed.

        Blocks: the greenlet.
        """
        token = os.urandom(8).hex().encode()
        self._waiting[token] = session
        reader = gevent.spawn(_read_sizes, peer, rest, session)
        try:
            peer.sendall(b"session %s\n" % token)
            reader.rawlink(lambda _: session.over.set())
            session.over.wait()
            if session.status is not None:
                peer.sendall(b"exit %d\n" % session.status)
        finally:
            self._waiting.pop(token, None)
            reader.kill()


def _read_sizes(peer: socket, rest: bytes, session: Session) -> None:
    """Apply `size` lines until the peer closes or sends a line that is too long."""
    try:
        while True:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                if match := _SIZE.fullmatch(line):
                    session.resize(window_size(match[1]), window_size(match[2]))
            if len(rest) > _LINE_LIMIT or not (data := peer.recv(_LINE_LIMIT)):
                return
            rest += data
    except OSError:
        pass
