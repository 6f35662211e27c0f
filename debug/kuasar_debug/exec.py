"""One command in the guest over the debug server, by the protocol of Kuasar's kuasar-ctl.

The header is followed by one line: a shell that runs the command and then prints a marker with the
command's exit status, as its last output.
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

from kuasar_host.errors import HostError

HEADER = b"KSR_MODE exec\n"
TIMED_OUT, INTERRUPTED = 124, 130

_CHUNK = 65536
# execve(2) limits an argument to 128 KiB.
_WORD_LIMIT = 65536
_MARKER = b"__KSR_EXIT__:"
_DIGITS = re.compile(rb"([0-9]{1,3})\r?\n?")
# Decodes the words, keeps the terminal from changing the output, and gives the command no input:
# this protocol has no end of input.
_WRAPPER = (
    'eval "set -- $(printf %b "$@")"; stty -opost 2>/dev/null; "$@" </dev/null; rc=$?; '
    'printf "{marker}{token}:%s\\n" "$rc"; exit "$rc"'
)


def make_token() -> str:
    """Return a word that distinguishes this call's marker from one that the command prints."""
    return f"{os.getpid()}-{time.time_ns()}"


def command_line(command: Sequence[str], token: str) -> bytes:
    """Return the line to send: printable ASCII, which Kuasar's own agent passes on unchanged too.

    The line editor of its interactive shell gives control characters a meaning.
    """
    wrapper = _WRAPPER.format(marker=_MARKER.decode(), token=token)
    words = [wrapper, "sh", *_encode(shlex.join(command))]
    return b"exec sh -c " + b" ".join(_quote(word) for word in words) + b"\n"


def run(peer: socket, command: Sequence[str], write: Callable[[bytes], None]) -> int:
    """Run a command and return its exit status; `write` gets its output as it comes.

    Raises:
        HostError: the connection broke, or ended without an exit status.
        OSError: `write` raised it.

    Blocks: the greenlet.
    """
    token = make_token()
    typing = gevent.spawn(_type, peer, command, token)
    output = Output(token, write)
    try:
        while data := _receive(peer):
            output.feed(data)
    except BaseException as error:
        # An OSError is that of `write`, which can take no more.
        if not isinstance(error, OSError):
            output.give_up()
        raise
    finally:
        typing.kill()
    return output.finish()


def _receive(peer: socket) -> bytes:
    try:
        return peer.recv(_CHUNK)
    except OSError as error:
        raise HostError(f"the connection to the guest broke: {error.strerror}") from None


def _type(peer: socket, command: Sequence[str], token: str) -> None:
    # The reader of the connection reports that it broke.
    with contextlib.suppress(OSError):
        # Before anything that takes time: Kuasar's own agent waits 0.1 s for it.
        peer.sendall(HEADER)
        peer.sendall(command_line(command, token))


class Output:
    """Filter that passes output on and withholds the marker at its end."""

    def __init__(self, token: str, write: Callable[[bytes], None]) -> None:
        self._prefix = _MARKER + token.encode() + b":"
        self._write = write
        self._held = b""

    def feed(self, data: bytes) -> None:
        """Take the next output."""
        data = self._held + data
        start = self._possible_marker(data)
        self._write(data[:start])
        self._held = data[start:]

    def _possible_marker(self, data: bytes) -> int:
        """Return where a marker may begin that more data would complete; else the end."""
        start = data.rfind(self._prefix)
        # Three digits and two characters for the line's end may follow.
        if start >= 0 and len(data) <= start + len(self._prefix) + 5:
            return start
        for size in range(len(self._prefix) - 1, 0, -1):
            if data.endswith(self._prefix[:size]):
                return len(data) - size
        return len(data)

    def give_up(self) -> None:
        """Pass on what may have been the beginning of a marker: no more will come."""
        self._write(self._held)

    def finish(self) -> int:
        """Return the exit status.

        Raises:
            HostError: the output has no marker at its end.
        """
        head, found, tail = self._held.rpartition(self._prefix)
        match = _DIGITS.fullmatch(tail) if found else None
        if match is None:
            self.give_up()
            raise HostError("the guest ended the connection without an exit status")
        self._write(head)
        return int(match[1])


def _encode(text: str) -> Iterator[str]:
    """Yield `text` as words for printf's %b, which prints them one after another."""
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
