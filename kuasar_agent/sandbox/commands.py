"""A shell command in the guest, outside of every container, to its end."""

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
"""Bytes of UTF-8 in a reply, which has to stay below 4 MiB with everything around."""
ERRORS_LIMIT = 256 << 10
LINGER = 1.0
"""Seconds for which output is read after the shell has ended: a process that it left in the
background may hold the pipe open for ever."""

_SHELL = "/bin/bash"
_CHUNK = 64 << 10


def run(reaper: Reaper, command: str, stdin: bytes, cancelled: Event) -> str:
    """What `/bin/bash -c command` writes; bytes that are not UTF-8 become U+FFFD.

    Output beyond `OUTPUT_LIMIT` is thrown away, and the last line then says so.

    Args:
        stdin: the command's whole input; /dev/null when it is empty.
        cancelled: when it is set the command is killed with its process group.

    Raises Unknown when the shell cannot be started, or ends with another status than 0: then the
    text has the status, 128 + n for signal n, and what was written to stderr. Raises Cancelled.
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
        raise Unknown(
            f"cmd {command} failed with exit code {exit.status} and error message {errors.text()}"
        )
    return output.text()


class _Output:
    """The reading end of a pipe, and the first bytes that came out of it."""

    def __init__(self, limit: int) -> None:
        self.reader = gevent.Greenlet(self._read)
        self.sink = -1
        """The end for the process; the spawning function closes it."""
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
            gevent.sleep(0)  # a writer may be so fast that there is always more


def _spawn(reaper: Reaper, command: str, stdin: bytes, output: _Output, errors: _Output) -> Child:
    with contextlib.ExitStack() as ours:
        try:
            source = DEVNULL
            if stdin:
                # A file in memory is there as a whole: nobody has to feed a pipe meanwhile.
                file = ours.enter_context(open(os.memfd_create("stdin"), "w+b"))
                file.write(stdin)
                file.seek(0)
                source = file.fileno()
            ours.callback(output.close_sink)
            ours.callback(errors.close_sink)
            return reaper.spawn(
                [_SHELL, "-c", command],
                stdin=source,
                stdout=output.open(),
                stderr=errors.open(),
                cwd="/",
            )
        except OSError as error:
            raise Unknown(f"spawn failed error: {error.strerror}") from None


def _kill_when(cancelled: Event, shell: Child) -> None:
    cancelled.wait()
    if shell.exit is None:  # else the number may be another group's
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
