"""Shell commands in the guest, outside of every container."""

from __future__ import annotations

import contextlib
import os
import signal
from subprocess import DEVNULL

import gevent
from gevent.event import Event
from gevent.os import nb_read

from kuasar_agent.errors import Cancelled, InvalidArgument, Unknown
from kuasar_agent.reaper import Child, Reaper

OUTPUT_LIMIT = 3 << 20
"""Bytes of UTF-8 in a reply: a ttrpc message with all its fields has at most 4 MiB."""
ERRORS_LIMIT = 256 << 10
"""Bytes of stderr in the message of an error."""
LINGER = 1.0
"""Seconds for which output is read after the shell has ended: a background process that it started
may hold the pipe open without end."""

_SHELL = "/bin/bash"
_CHUNK = 64 << 10


def run(reaper: Reaper, command: str, stdin: bytes, cancelled: Event) -> str:
    """Run `/bin/bash -c command` and return its output; bytes that are not UTF-8 become U+FFFD.

    Output beyond `OUTPUT_LIMIT` is discarded, and the last line then says so.

    Args:
        stdin: the command's whole input; an empty one stands for /dev/null.
        cancelled: when set, the command is killed with its process group.

    Raises:
        InvalidArgument: the command has a NUL character.
        Unknown: the shell cannot be started or ended with another status than 0; the message has
            the status, 128 + n for signal n, and the command's stderr.
        Cancelled: the command was killed.

    Blocks: the greenlet.
    """
    if "\0" in command:
        raise InvalidArgument("a command cannot contain a NUL character")
    output, errors = _Output(OUTPUT_LIMIT), _Output(ERRORS_LIMIT)
    try:
        shell = _spawn(reaper, command, stdin, output, errors)
        for each in (output, errors):
            each.start()
        killer = gevent.spawn(_kill_when, cancelled, shell)
        exit = shell.wait()
        killer.kill()
        gevent.joinall([output.reader, errors.reader], timeout=LINGER)
    finally:
        output.close()
        errors.close()
    if exit.status == 128 + signal.SIGKILL and cancelled.is_set():
        raise Cancelled(f"cmd {command} killed: its caller waits no longer")
    if exit.status != 0:
        # contract: the words of Kuasar's vmm-task
        raise Unknown(
            f"cmd {command} failed with exit code {exit.status} and error message {errors.text()}"
        )
    return output.text()


class _Output:
    """The reading end of a pipe, and the first bytes of its data."""

    def __init__(self, limit: int) -> None:
        self.reader = gevent.Greenlet(self._read)
        self.sink = -1
        """The process's end of the pipe; the function that starts the process closes it."""
        self._source = -1
        self._limit = limit
        self._data = bytearray()
        self._dropped = 0

    def descriptors(self) -> list[int]:
        return [self._source, self.sink]

    def open(self) -> int:
        self._source, self.sink = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._source, False)
        return self.sink

    def close_sink(self) -> None:
        if self.sink >= 0:
            os.close(self.sink)
            self.sink = -1

    def start(self) -> None:
        self.reader.start()

    def close(self) -> None:
        self.reader.kill()
        self.close_sink()
        if self._source >= 0:
            os.close(self._source)
            self._source = -1

    def text(self) -> str:
        data = self._data.decode(errors="replace").encode()
        cut = self._dropped or len(data) > self._limit
        text = data[: self._limit].decode(errors="ignore")
        return f"{text}\n[output cut after {self._limit} bytes]\n" if cut else text

    def _read(self) -> None:
        while chunk := nb_read(self._source, _CHUNK):
            room = self._limit - len(self._data)
            self._data += chunk[:room]
            self._dropped += max(0, len(chunk) - room)
            gevent.sleep(0)  # a fast writer would otherwise keep the hub from other greenlets


def _spawn(reaper: Reaper, command: str, stdin: bytes, output: _Output, errors: _Output) -> Child:
    with contextlib.ExitStack() as ours:
        try:
            source = DEVNULL
            if stdin:
                # A file in memory, unlike a pipe, needs no greenlet that feeds it.
                file = ours.enter_context(open(os.memfd_create("stdin"), "w+b"))
                file.write(stdin)
                file.seek(0)
                source = file.fileno()
            ours.callback(output.close_sink)
            ours.callback(errors.close_sink)
            return reaper.spawn(
                [_SHELL, "-c", command], (source, output.open(), errors.open()), cwd="/"
            )
        except OSError as error:
            raise Unknown(f"spawn failed error: {error.strerror}") from None


def _kill_when(cancelled: Event, shell: Child) -> None:
    cancelled.wait()
    if shell.exit is None:  # otherwise the number may have become another group's
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
