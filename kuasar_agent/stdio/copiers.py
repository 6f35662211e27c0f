"""One stream of a process: a pipe end or a terminal, a transport, and the greenlet that copies.

A transport that does not keep up fills the pipe, and then the process waits: that is the
back-pressure, and one chunk is all that is held beyond it.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Generic, TypeVar

import gevent
from gevent.hub import get_hub

from kuasar_agent.log import get_logger
from kuasar_agent.stdio.console_socket import end_of_file
from kuasar_agent.stdio.descriptors import ReadEnd, WriteEnd
from kuasar_agent.stdio.pipes import CHUNK
from kuasar_agent.stdio.transports import Sink, Source

log = get_logger(__name__)

End = TypeVar("End", bound=Sink | Source)

LINGER = 0.2
"""Seconds of silence after which input ends once CloseIO was called: its last bytes may still be
on their way, since they do not travel with the call."""

# A program that writes little at a time would cost a wake-up, and a packet, for each write. One
# that wrote less than _PLENTY within _BURST is given _GATHER to fill its pipe (bytes, seconds).
# One that has filled it did not need that long, and would wait: it is read without a pause twice
# as often each time, up to _MOST_IN_A_ROW, before another try.
_PLENTY, _BURST, _GATHER = 64 * 1024, 0.004, 0.002
_MOST_IN_A_ROW = 1024


class _Stream(Generic[End]):
    def __init__(self, fd: int, transport: End) -> None:
        self.transport = transport
        self.copier: gevent.Greenlet[[], None] | None = None
        self._fd = fd

    def start(self) -> None:
        self.copier = gevent.spawn(self._run)

    def close(self) -> None:
        """The process is deleted."""
        if self.copier is not None:
            self.copier.kill()
        self._release()
        self.transport.close()

    def _run(self) -> None:
        try:
            self._copy()
        except Exception as error:
            log.warning("stream failed", error=error)
        # A kill leaves the rest to `close`, which may still save something.
        self._release()

    def _copy(self) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Output(_Stream[Sink]):
    """Ends when every writer has closed the pipe, or the terminal."""

    def __init__(self, fd: int, sink: Sink) -> None:
        super().__init__(fd, sink)
        self._input = ReadEnd(fd)
        self._last = 0.0
        self._unpaused = self._in_a_row = 0

    def close(self) -> None:
        if self.copier is not None:
            self.copier.kill()
        if self._fd >= 0:
            while data := self._input.read_now(CHUNK):
                if not self.transport.keep(data):
                    break
        super().close()

    def _copy(self) -> None:
        while data := self._next():
            self.transport.write(data)
        self.transport.finish()

    def _next(self) -> bytes:
        pause = self._pause()
        # Also lets others run when neither side ever makes this one wait.
        gevent.sleep(pause)
        try:
            data = self._input.read(CHUNK)
        except OSError as error:
            # What Linux says of a terminal that no process has open any more.
            if error.errno == errno.EIO:
                return b""
            raise
        if pause:
            filled = len(data) >= CHUNK
            self._in_a_row = min(2 * self._in_a_row or 1, _MOST_IN_A_ROW) if filled else 0
            self._unpaused = self._in_a_row
        self._last = 0.0 if len(data) >= _PLENTY else time.monotonic()
        return data

    def _pause(self) -> float:
        if time.monotonic() - self._last >= _BURST:
            return 0
        if self._unpaused:
            self._unpaused -= 1
            return 0
        return _GATHER

    def _release(self) -> None:
        self._input.forget()
        super()._release()


class _EndInput(Exception):
    """Thrown into a copier that waits for input which need not come any more."""


class Input(_Stream[Source]):
    """Ends when the source does, or when nobody reads the pipe any more."""

    def __init__(self, fd: int, source: Source) -> None:
        super().__init__(fd, source)
        self._target = WriteEnd(fd)
        self._waiting = False
        self._closing = False

    def finish(self) -> None:
        """End the input after what has arrived, and what arrives within `LINGER`."""
        if not self._closing:
            self._closing = True
            get_hub().loop.run_callback(self._interrupt)

    def _interrupt(self) -> None:
        if self._waiting and self.copier is not None:
            self.copier.throw(_EndInput)

    def _copy(self) -> None:
        try:
            while data := self._next():
                self._target.write_all(data)
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

    def _release(self) -> None:
        self._target.forget()
        super()._release()


class TerminalInput(Input):
    """Typed into a terminal; its end is typed, too."""

    def _copy(self) -> None:
        last = b"\n"
        try:
            while data := self._next():
                self._target.write_all(data)
                last = data[-1:]
            self._target.write_all(end_of_file(self._fd, in_line=last != b"\n"))
        except OSError as error:
            # The terminal's last process is gone.
            if error.errno != errno.EIO:
                raise
