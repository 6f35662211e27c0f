"""A pseudo-terminal and the session of processes that it controls.

ptyprocess would fork here and wait for its child. Python code in the child of a process with
threads can hang, and only the reaper may wait. So the reaper spawns a shell that takes the terminal
as its controlling terminal and executes the program; ptyprocess has the master, the window size and
the modes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import termios
import time
from collections.abc import Mapping

import gevent
from ptyprocess import PtyProcess

from kuasar_agent.linux.session import kill_session
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Child, Reaper

log = get_logger(__name__)

# A session leader without a controlling terminal gets the one that it opens (tty(4)). With a third
# argument the program reads that file, which is the terminal again, as a script.
_TAKE_TERMINAL = ': <"$1"; exec "$2" ${3+"$3"}'

_READABLE, _WRITABLE = 1, 2
# Places in the list of termios.tcgetattr().
_IFLAG, _LFLAG, _CHARACTERS = 0, 3, 6
# N_TTY_BUF_SIZE (n_tty.c).
_INPUT_BUFFER = 4096

# Seconds: the pause until killed processes are looked for again doubles up to _PAUSE_LAST, and
# after _KILL_WITHIN they are reported and left.
_PAUSE_FIRST, _PAUSE_LAST, _KILL_WITHIN = 0.002, 0.5, 30.0


class Terminal(PtyProcess):  # type: ignore[misc]
    """A program on a terminal; `read` and `write` let other greenlets run.

    The modes set on the master are the slave's; they may be set before the program starts.
    """

    def __init__(self, rows: int, cols: int) -> None:
        """Open a pseudo-terminal.

        Raises:
            OSError: the system has no pseudo-terminal left.
        """
        master, self._slave = os.openpty()
        self._name = os.ttyname(self._slave)
        os.set_blocking(master, False)
        super().__init__(0, master)
        self.fd: int = master
        loop = gevent.get_hub().loop
        self._readable = loop.io(master, _READABLE)
        self._writable = loop.io(master, _WRITABLE)
        self._finished = False
        self._all_bytes = False
        self._child: Child | None = None
        self.setwinsize(rows, cols)

    def descriptors(self) -> list[int]:
        """Return the descriptors that it owns, for the leak report."""
        return [self.fd, self._slave]

    def pass_all_bytes(self) -> None:
        """Turn off echo, signals from keys, and every other meaning that input bytes can have.

        Lines are not collected either: the kernel limits a line to 4095 bytes (termios(3)).
        """
        self._all_bytes = True
        modes = termios.tcgetattr(self.fd)
        modes[_IFLAG] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON)
        modes[_LFLAG] &= ~(termios.ECHO | termios.ICANON | termios.ISIG)
        termios.tcsetattr(self.fd, termios.TCSANOW, modes)

    def execute(
        self, reaper: Reaper, program: str, env: Mapping[str, str], *, script: bool = False
    ) -> Child:
        """Start `program` as the leader of a new session.

        A shell that gets the terminal as a script to read edits no lines, prints no prompt, and
        expands no history. A program that cannot be executed is reported on the terminal, with
        status 126 or 127.

        Raises:
            OSError: no process can be started.
        """
        slave, self._slave = self._slave, -1
        command = ["/bin/sh", "-c", _TAKE_TERMINAL, "kuasar-agent", self._name, program]
        if script:
            command.append(self._name)
        try:
            self._child = reaper.spawn(command, (slave, slave, slave), env=env, cwd="/")
        finally:
            os.close(slave)
        self.pid = self._child.pid
        return self._child

    def read(self, size: int = 65536) -> bytes:
        """Return the next output.

        Raises:
            EOFError: no process is left that could write.

        Blocks: the greenlet.
        """
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
        """Write `data` as input, all of it.

        Raises:
            OSError: the terminal is closed.

        Blocks: the greenlet.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:
                gevent.get_hub().wait(self._writable)
        return len(data)

    def end_input(self) -> None:
        """Write an end of file; call it again until the program has ended.

        A terminal has one only while it collects lines (termios(3)): one that passes all bytes
        collects them from here on, once the bytes before have been taken as they are.

        Raises:
            OSError: the terminal is closed.
        """
        modes = termios.tcgetattr(self.fd)
        if self._all_bytes:
            if not self._input_is_taken():
                return
            modes[_LFLAG] |= termios.ICANON
            termios.tcsetattr(self.fd, termios.TCSANOW, modes)
        self.write(modes[_CHARACTERS][termios.VEOF])
        if self._all_bytes:
            self._restart_reads()

    def _restart_reads(self) -> None:
        """Have a read begin anew that began while lines were not collected.

        Such a read wants a byte and passes over an end of file (n_tty_read, n_tty.c). A stopped
        and continued process makes the system call again (signal(7)).
        """
        with contextlib.suppress(OSError):  # the program has ended
            group = os.tcgetpgrp(self.fd)
            if group > 1:  # 0, a terminal without a group, would be the agent's own
                os.killpg(group, signal.SIGSTOP)
                os.killpg(group, signal.SIGCONT)

    def _input_is_taken(self) -> bool:
        """Return whether the line discipline has all the input that was written."""
        slave = os.open(self._name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            # poll(2) flushes what is on its way to the line discipline (n_tty_poll, n_tty.c).
            poll = select.poll()
            poll.register(slave, select.POLLIN)
            poll.poll(0)
            waiting = fcntl.ioctl(slave, termios.FIONREAD, bytes(4))
        finally:
            os.close(slave)
        # More can be on its way only while the buffer of 4096 bytes is full.
        return int.from_bytes(waiting, sys.byteorder) < _INPUT_BUFFER // 2

    def isalive(self) -> bool:
        """Return whether the program runs; ptyprocess would wait for it."""
        return self._child is not None and self._child.exit is None

    def kill_all(self) -> None:
        """Kill every process of the session, and let `read` end after the output that is there.

        Blocks: the greenlet.
        """
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
        """Close the terminal. No greenlet may be reading or writing."""
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
