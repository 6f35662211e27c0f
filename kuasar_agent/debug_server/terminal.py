"""A pseudo-terminal and the session of processes that it controls.

ptyprocess forks in this process and waits for its child. Neither may happen here: Python code in
the child of a process with threads can hang, and exits belong to the reaper. So a small shell that
the reaper spawns makes the terminal its own and executes the program; ptyprocess keeps the master,
the window size and the modes.
"""

from __future__ import annotations

import os
import termios
import time
from collections.abc import Mapping

import gevent
from ptyprocess import PtyProcess

from kuasar_agent.linux.session import kill_session
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Child, Reaper

log = get_logger(__name__)

# A session leader without a controlling terminal gets the one that it opens (tty(4)).
_TAKE_TERMINAL = ': <"$1"; exec "$2"'

_READABLE, _WRITABLE = 1, 2

# Killed processes are looked for again after a pause that grows, and given up in the end (seconds).
_PAUSE_FIRST, _PAUSE_LAST, _KILL_WITHIN = 0.002, 0.5, 30.0


class Terminal(PtyProcess):  # type: ignore[misc]
    """A program on a terminal; `read` and `write` let other greenlets run.

    The master's modes are those of the slave; they may be set before the program starts.
    """

    def __init__(self, rows: int, cols: int) -> None:
        """Raises OSError when there is no pseudo-terminal left."""
        master, self._slave = os.openpty()
        os.set_blocking(master, False)
        super().__init__(0, master)
        self.fd: int = master
        loop = gevent.get_hub().loop
        self._readable = loop.io(master, _READABLE)
        self._writable = loop.io(master, _WRITABLE)
        self._finished = False
        self._child: Child | None = None
        self.setwinsize(rows, cols)

    def descriptors(self) -> list[int]:
        return [self.fd, self._slave]

    def set_quiet(self) -> None:
        """Neither echo input nor gather it into lines, whose length is limited to 4095 bytes."""
        self.setecho(False)
        modes = termios.tcgetattr(self.fd)
        modes[3] &= ~termios.ICANON
        termios.tcsetattr(self.fd, termios.TCSANOW, modes)

    def execute(self, reaper: Reaper, program: str, env: Mapping[str, str]) -> Child:
        """Start `program` as the leader of a new session. Raises OSError when there is no shell.

        A program that cannot be executed is reported on the terminal, with status 126 or 127.
        """
        slave, self._slave = self._slave, -1
        try:
            self._child = reaper.spawn(
                ["/bin/sh", "-c", _TAKE_TERMINAL, "kuasar-agent", os.ttyname(slave), program],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=env,
                cwd="/",
            )
        finally:
            os.close(slave)
        self.pid = self._child.pid
        return self._child

    def read(self, size: int = 65536) -> bytes:
        """The next output; raises EOFError when nobody is left who could write."""
        while True:
            try:
                return os.read(self.fd, size)
            except BlockingIOError:
                if self._finished:
                    raise EOFError from None
            except OSError:
                raise EOFError from None
            try:
                gevent.get_hub().wait(self._readable)
            except _Finished:
                pass

    def write(self, data: bytes, flush: bool = True) -> int:
        """Type `data`; returns when the terminal took all of it. Raises OSError when it is gone."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:
                gevent.get_hub().wait(self._writable)
        return len(data)

    def end_of_input(self) -> bytes:
        """What to type for an end of file."""
        character: bytes = termios.tcgetattr(self.fd)[6][termios.VEOF]
        return character

    def isalive(self) -> bool:
        return self._child is not None and self._child.exit is None

    def kill_all(self) -> None:
        """End every process of the session, and let `read` end once it has what they wrote."""
        if self._child is None:
            return
        deadline, pause = time.monotonic() + _KILL_WITHIN, _PAUSE_FIRST
        while kill_session(self._child.pid) or self.isalive():
            if time.monotonic() > deadline:
                log.warning("processes of a debug shell do not end", session=self._child.pid)
                break
            gevent.sleep(pause)
            pause = min(pause * 2, _PAUSE_LAST)
        self._finished = True
        gevent.get_hub().cancel_wait(self._readable, _Finished)

    def close(self, force: bool = True) -> None:
        """Release the terminal; no greenlet may be reading or writing."""
        if self.fd == -1:
            return
        # Keeps ptyprocess's destructor from looking for the child.
        self.closed = True
        if self._slave >= 0:
            os.close(self._slave)
        self._readable.close()
        self._writable.close()
        self.fileobj.close()
        self.fd = -1


class _Finished(Exception):
    """Thrown into the reader: no more output will come."""
