"""A function as a child process: what Popen is for a command, without a new interpreter."""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress


class Forked:
    """A child of this process that runs `body` and ends with its exit status."""

    def __init__(self, body: Callable[[], None]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _run(body)
        self._exited = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        """Return the exit status, or None while the child runs."""
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit status, negative for a signal; None when the time is over."""
        if self.returncode is None and select.select([self._exited], [], [], timeout)[0]:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
            os.close(self._exited)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal unless the child has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._exited, number)

    def kill(self) -> None:
        """Kill the child unless it has ended."""
        self.send_signal(signal.SIGKILL)


def _run(body: Callable[[], None]) -> None:
    status = 1
    try:
        # The parent's sockets must close when the parent closes them. Their objects stay, so that
        # collecting one does not close a descriptor of the child that has got its number.
        gc.freeze()
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        # pytest's own write to a descriptor above 2.
        sys.stdout, sys.stderr = (os.fdopen(fd, "w", 1, closefd=False) for fd in (1, 2))
        body()
        status = 0
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(status)
