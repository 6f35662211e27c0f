"""Run one command in the guest over the debug console, by the protocol of Kuasar's kuasar-ctl.

After the header one line is typed: a shell that runs the command and prints a marker with its exit
status as the very last thing.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence

import gevent
from gevent.socket import socket

from kuasar_host.errors import DebugError

HEADER = b"KSR_MODE exec\n"
TIMED_OUT, INTERRUPTED = 124, 130

_CHUNK = 65536
# execve(2) takes arguments of 128 KiB at most.
_WORD_LIMIT = 65536
_MARKER = b"__KSR_EXIT__:"
_DIGITS = re.compile(rb"([0-9]{1,3})\r?\n?")
# Decodes the words, leaves the output as the command writes it, and gives it no input: the end of
# one cannot be told over a terminal.
_WRAPPER = (
    'eval "set -- $(printf %b "$@")"; stty -opost 2>/dev/null; "$@" </dev/null; rc=$?; '
    'printf "{marker}{token}:%s\\n" "$rc"; exit "$rc"'
)


def make_token() -> str:
    """What tells this call's marker from one that the command prints."""
    return f"{os.getpid()}-{time.time_ns()}"


def command_line(command: Sequence[str], token: str) -> bytes:
    """What is typed: printable ASCII only, which no shell's line editor gives a meaning."""
    wrapper = _WRAPPER.format(marker=_MARKER.decode(), token=token)
    words = [wrapper, "sh", *_encode(shlex.join(command))]
    return b"exec sh -c " + b" ".join(_quote(word) for word in words) + b"\n"


def run(peer: socket, command: Sequence[str], write: Callable[[bytes], None]) -> int:
    """The command's exit status; its output goes to `write` as it comes. Raises DebugError."""
    token = make_token()
    typing = gevent.spawn(_type, peer, command, token)
    output = Output(token, write)
    try:
        while data := peer.recv(_CHUNK):
            output.feed(data)
    except BaseException as error:
        output.give_up()
        if isinstance(error, OSError):
            raise DebugError(f"the connection to the guest broke: {error.strerror}") from None
        raise
    finally:
        typing.kill()
    return output.finish()


def _type(peer: socket, command: Sequence[str], token: str) -> None:
    # A connection that broke is noticed by who reads it.
    with contextlib.suppress(OSError):
        # Before anything that takes time: the guest waits a moment only.
        peer.sendall(HEADER)
        peer.sendall(command_line(command, token))


class Output:
    """Passes output on, but for the marker at its end."""

    def __init__(self, token: str, write: Callable[[bytes], None]) -> None:
        self._prefix = _MARKER + token.encode() + b":"
        self._write = write
        self._held = b""

    def feed(self, data: bytes) -> None:
        data = self._held + data
        start = self._possible_marker(data)
        self._write(data[:start])
        self._held = data[start:]

    def _possible_marker(self, data: bytes) -> int:
        """Where a marker may have begun that more data would complete; else the end."""
        start = data.rfind(self._prefix)
        # Three digits and two characters for the line's end may follow.
        if start >= 0 and len(data) <= start + len(self._prefix) + 5:
            return start
        for size in range(len(self._prefix) - 1, 0, -1):
            if data.endswith(self._prefix[:size]):
                return len(data) - size
        return len(data)

    def give_up(self) -> None:
        """No more will come, and no marker."""
        self._write(self._held)

    def finish(self) -> int:
        """The exit status. Raises DebugError when the output has no marker at its end."""
        head, found, tail = self._held.rpartition(self._prefix)
        match = _DIGITS.fullmatch(tail) if found else None
        if match is None:
            self.give_up()
            raise DebugError("the guest ended the connection without an exit status")
        self._write(head)
        return int(match[1])


def _encode(text: str) -> Iterator[str]:
    """`text` as words for printf's %b, which writes them one after another."""
    word = ""
    for byte in os.fsencode(text):
        plain = 0x20 <= byte < 0x7F and byte != ord("\\")
        word += chr(byte) if plain else f"\\0{byte:03o}"
        if len(word) >= _WORD_LIMIT:
            yield word
            word = ""
    yield word


def _quote(word: str) -> bytes:
    return b"'" + word.encode().replace(b"'", b"'\\''") + b"'"
