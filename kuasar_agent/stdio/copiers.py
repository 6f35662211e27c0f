"""One stream of a process: a pipe end or a terminal, a transport, and the greenlet that copies.

A transport that does not keep up fills the pipe, and then the process waits: that is the
back-pressure, and one chunk is all that is held beyond it.
"""

from __future__ import annotations

import errno
from typing import Generic, TypeVar

import gevent
from gevent.hub import get_hub

from kuasar_agent.log import get_logger
from kuasar_agent.stdio.console_socket import end_of_file
from kuasar_agent.stdio.descriptors import ReadEnd, WriteEnd
from kuasar_agent.stdio.pacing import ReadPause
from kuasar_agent.stdio.pipes import CHUNK
from kuasar_agent.stdio.sink import Sink, Source

log = get_logger(__name__)

PipeEnd = TypeVar("PipeEnd", bound=ReadEnd | WriteEnd)
Transport = TypeVar("Transport", bound=Sink | Source)

LINGER = 0.2
"""Seconds of silence after which input ends once CloseIO was called: its last bytes may still be
on their way, since they do not travel with the call."""

MOMENT = 0.1
"""Seconds for a terminal's last bytes to come through the kernel, and for a reader to look at the
bytes that its socket had."""


class _Stream(Generic[PipeEnd, Transport]):
    """A pipe end and a transport, which it owns, and the greenlet between them."""

    def __init__(self, pipe: PipeEnd, transport: Transport) -> None:
        self.transport = transport
        self.copier: gevent.Greenlet[[], None] | None = None
        self._pipe = pipe

    def start(self) -> None:
        """Begin to copy."""
        self.copier = gevent.spawn(self._run)

    def close(self) -> None:
        """Stop copying and give everything back. May be called again."""
        if self.copier is not None:
            self.copier.kill()
        self._pipe.close()
        self.transport.close()

    def _run(self) -> None:
        try:
            self._copy()
        except Exception as error:
            log.warning("stream failed", error=error)
        # A kill leaves the rest to `close`, which may still save something.
        self._pipe.close()

    def _copy(self) -> None:
        raise NotImplementedError


class Output(_Stream[ReadEnd, Sink]):
    """Output: it ends when every process has closed the pipe, or the terminal."""

    def __init__(self, fd: int, sink: Sink) -> None:
        super().__init__(ReadEnd(fd), sink)
        self._pause = ReadPause()
        self._read = 0
        """Bytes out of the pipe so far."""
        self._due = 0
        """Of these, with those in the pipe, the bytes that `is_taken` asks for."""
        self._ended = self._writing = False

    @property
    def progress(self) -> int:
        """A number that changes when the reader takes bytes."""
        return self.transport.progress

    def mark(self) -> None:
        """Let `is_taken` ask for all that is in the pipe now and has come out of it before.

        More may follow: a process that outlives its parent can have the pipe open for ever.
        """
        if not self._pipe.closed:
            self._due = self._read + self._pipe.unread()

    def is_taken(self, quiet: float) -> bool:
        """Return whether the reader has all output up to the mark.

        `quiet` is the seconds since the mark and since the reader took bytes. Without the end of
        the output that is all there is to go by: a reader does not acknowledge its last bytes.
        """
        if self.copier is None or (self._ended and not self._read):
            # Without output there is nothing to wait for but a reader of its end.
            return True
        if self._ended or self.copier.ready():
            taken = self.copier.ready() or self.transport.taken
            return taken and quiet >= self.transport.moment
        passed = self._read >= self._due and not self._writing
        return passed and self.transport.taken and quiet >= MOMENT

    def close(self) -> None:
        """Stop copying; the bytes in the pipe are kept if the transport can."""
        if self.copier is not None:
            self.copier.kill()
        if not self._pipe.closed:
            while data := self._pipe.read_now(CHUNK):
                if not self.transport.keep(data):
                    break
        super().close()

    def _copy(self) -> None:
        while data := self._next():
            self._read += len(data)
            self._writing = True
            self.transport.write(data)
            self._writing = False
        self._ended = True
        self.transport.finish()

    def _next(self) -> bytes:
        # Also lets other greenlets run when neither side ever makes this one wait.
        gevent.sleep(self._pause.before_read())
        try:
            data = self._pipe.read(CHUNK)
        except OSError as error:
            # Linux's answer when no process has the terminal open any more (n_tty_read).
            if error.errno == errno.EIO:
                return b""
            raise
        self._pause.after_read(len(data))
        return data


class _EndInput(Exception):
    """Thrown into a copier that waits for input which need not come any more."""


class Input(_Stream[WriteEnd, Source]):
    """Input: it ends when the source does, or when no process has the pipe open to read."""

    def __init__(self, fd: int, source: Source) -> None:
        super().__init__(WriteEnd(fd), source)
        self._waiting = False
        self._closing = False

    def finish(self) -> None:
        """End the input after the bytes that are here, and those that come within `LINGER`."""
        if not self._closing:
            self._closing = True
            get_hub().loop.run_callback(self._interrupt)

    def _interrupt(self) -> None:
        if self._waiting and self.copier is not None:
            self.copier.throw(_EndInput)

    def _copy(self) -> None:
        try:
            while data := self._next():
                self._pipe.write_all(data)
        except BrokenPipeError:
            pass

    def _next(self) -> bytes:
        if not self._closing:
            self._waiting = True
            try:
                return self.transport.read()
            except _EndInput:
                pass
            finally:
                self._waiting = False
        data: bytes = gevent.with_timeout(LINGER, self.transport.read, timeout_value=b"")
        return data

    def _run(self) -> None:
        super()._run()
        self.transport.finish()


class TerminalInput(Input):
    """Input that is typed into a terminal; its end is typed, too."""

    def _copy(self) -> None:
        last = b"\n"
        try:
            while data := self._next():
                self._pipe.write_all(data)
                last = data[-1:]
            self._pipe.write_all(end_of_file(self._pipe.fd, in_line=last != b"\n"))
        except OSError as error:
            # The terminal's last process is gone.
            if error.errno != errno.EIO:
                raise
