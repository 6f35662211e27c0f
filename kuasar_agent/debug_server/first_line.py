"""The first line of a connection to the debug server, which selects its mode.

    KSR_MODE exec                          one command line for a program at the other end: no echo,
                                           no prompt, no line editing (Kuasar's kuasar-ctl)
    KSR_MODE session <rows> <cols> <term>  control connection of a shell (`session`)
    KSR_MODE attach <token>                terminal of that shell

Any other line, or none within 300 ms, is input for a plain shell: a person with socat sends no
header. A line that begins like a header has two seconds to arrive.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from gevent.socket import socket

# Kuasar's own agent waits 0.1 s, which a client on a busy machine misses.
_ANY_LINE_WITHIN = 0.3
# The pieces of a header can arrive late on a busy machine.
_HEADER_WITHIN = 2.0
_LIMIT, _CHUNK = 1024, 128

_HEADER = b"KSR_MODE "
_EXEC = b"KSR_MODE exec"  # contract: kuasar-ctl
_SESSION = re.compile(rb"KSR_MODE session ([0-9]{1,5}) ([0-9]{1,5}) ([\x21-\x7e]{1,64})")
_ATTACH = re.compile(rb"KSR_MODE attach ([0-9a-f]{16})")
# struct winsize has 16 bits (tty_ioctl(4)).
_LARGEST = 0xFFFF


@dataclass(frozen=True)
class Plain:
    """A terminal for a person; `typed` came before the mode was known."""

    typed: bytes


@dataclass(frozen=True)
class Exec:
    """A command line for a program; `typed` is its beginning."""

    typed: bytes


@dataclass(frozen=True)
class Control:
    """The control connection of a session; `rest` holds the first of its later lines."""

    rows: int
    cols: int
    term: str
    rest: bytes


@dataclass(frozen=True)
class Attach:
    """The terminal of the session with this token; `typed` is the first input."""

    token: bytes
    typed: bytes
    line: bytes
    """The line itself, which is input if no session has the token."""


Mode = Plain | Exec | Control | Attach


def read_mode(peer: socket) -> Mode:
    """Read the first line of a connection.

    Raises:
        OSError: the connection failed.

    Blocks: the greenlet, for two seconds at most.
    """
    return parse_mode(_read_line(peer))


def parse_mode(data: bytes) -> Mode:
    """Return the mode that the first line in `data` selects."""
    line, _, rest = data.partition(b"\n")
    line = line.removesuffix(b"\r")
    if line == _EXEC:
        return Exec(rest)
    if match := _SESSION.fullmatch(line):
        rows, cols, term = match.groups()
        return Control(window_size(rows), window_size(cols), term.decode(), rest)
    if match := _ATTACH.fullmatch(line):
        return Attach(match[1], rest, data)
    return Plain(data)


def window_size(digits: bytes) -> int:
    """Return a number of rows or columns, limited to the largest that the kernel stores."""
    return min(int(digits), _LARGEST)


def _read_line(peer: socket) -> bytes:
    """Read up to a newline, a kilobyte, the end of input, or the end of the time."""
    data = b""
    begun = time.monotonic()
    while b"\n" not in data and len(data) < _LIMIT:
        header = data != b"" and data.startswith(_HEADER[: len(data)])
        within = _HEADER_WITHIN if header else _ANY_LINE_WITHIN
        left = begun + within - time.monotonic()
        if left <= 0:
            break
        peer.settimeout(left)
        try:
            chunk = peer.recv(_CHUNK)
        except TimeoutError:
            break
        if not chunk:
            break
        data += chunk
    peer.settimeout(None)
    return data
