"""An interactive shell in the guest, on this terminal.

`kuasar_agent.debug_server.session` describes the two connections of a session. An agent without
sessions, such as Kuasar's own, passes the request to a shell and echoes it: the shell then gets a
plain connection, without window sizes and without an exit status.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator

import gevent
import gevent.event
from gevent.socket import SHUT_WR, socket, wait_read

from kuasar_host.address import WITHIN, GuestAddress
from kuasar_host.services import DEBUG_PORT

ESCAPE = b"\x1d"
"""Ctrl-] closes the connection, and the agent then kills the shell."""

_CHUNK = 65536
_LINE_LIMIT = 64
_ROWS, _COLS = 24, 80


def run(guest: GuestAddress) -> int:
    """Run a shell until it or the connection ends, and return its exit status.

    The status is 0 if the agent does not report it, and 1 if the connection broke.

    Raises:
        HostError: the debug server does not answer.

    Blocks: the greenlet.
    """
    control = guest.dial(DEBUG_PORT)
    with contextlib.closing(control):
        token = _open_session(control)
        with contextlib.closing(guest.dial(DEBUG_PORT)) as peer:
            if token:
                peer.sendall(b"KSR_MODE attach %s\n" % token)
                resize = gevent.signal_handler(signal.SIGWINCH, _send_size, control)
            else:
                control.close()
                resize = None
            try:
                with raw_terminal():
                    _relay(peer)
            finally:
                if resize is not None:
                    resize.cancel()
        return _exit_status(control) if token else 0


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Pass keys to the guest unchanged; the terminal's modes are restored after the block."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(0)
    try:
        # TCSANOW keeps input that was typed before; tty's default discards it.
        tty.setraw(0, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _open_session(control: socket) -> bytes:
    """Request a session and return its token; empty if the agent has no sessions."""
    rows, cols = _size()
    term = os.environ.get("TERM") or "xterm"
    control.sendall(f"KSR_MODE session {rows} {cols} {term}\n".encode())
    control.settimeout(WITHIN)
    with contextlib.suppress(TimeoutError):
        words = _read_line(control).split()
        if len(words) == 2 and words[0] == b"session":
            return words[1]
    return b""


def _relay(peer: socket) -> None:
    over = gevent.event.Event()
    typing = gevent.spawn(_type, peer, over)
    showing = gevent.spawn(_show, peer)
    showing.rawlink(lambda _: over.set())
    try:
        over.wait()
        if not showing.dead:
            _write(b"\r\n")
    finally:
        gevent.killall([typing, showing])


def _type(peer: socket, over: gevent.event.Event) -> None:
    """Send the keys; set `over` for the escape key."""
    escape = ESCAPE if sys.stdin.isatty() else None
    with contextlib.suppress(OSError):
        while True:
            wait_read(0)
            data = os.read(0, _CHUNK)
            if not data:
                peer.shutdown(SHUT_WR)
                return
            if escape is not None and escape in data:
                over.set()
                return
            peer.sendall(data)


def _show(peer: socket) -> None:
    with contextlib.suppress(OSError):
        while data := peer.recv(_CHUNK):
            _write(data)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _send_size(control: socket) -> None:
    rows, cols = _size()
    with contextlib.suppress(OSError):
        control.sendall(b"size %d %d\n" % (rows, cols))


def _exit_status(control: socket) -> int:
    with contextlib.suppress(OSError):
        control.settimeout(WITHIN)
        words = _read_line(control).split()
        if len(words) == 2 and words[0] == b"exit" and words[1].isdigit():
            return int(words[1])
    return 1


def _read_line(control: socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _LINE_LIMIT:
        if not (data := control.recv(1)):
            break
        line += data
    return line


def _size() -> tuple[int, int]:
    """Return the rows and columns of this terminal."""
    with contextlib.suppress(OSError):
        size = os.get_terminal_size(1)
        return size.lines or _ROWS, size.columns or _COLS
    return _ROWS, _COLS
