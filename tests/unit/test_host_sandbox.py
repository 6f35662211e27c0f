"""How a microVM that another process keeps is ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kuasar_host.errors import HostError
from kuasar_host.sandbox import is_running, lock, stop

_KEEPER = """
import os, signal, sys, time
from pathlib import Path
from kuasar_host.sandbox import lock

directory = Path(sys.argv[1])
fd = lock(directory)
(directory / "pid").write_text(str(os.getpid()))
"""

# Lets go of the directory, but takes its time to end, as an interpreter does.
_SLOW = """
signal.sigwait([signal.SIGTERM])
os.close(fd)
time.sleep(0.5)
"""

# Ends only when it is killed; what it had started lives a little longer.
_DEAF = """
keeper = os.getpid()
child = os.fork()
if child == 0:
    while os.getppid() == keeper:
        time.sleep(0.01)
    time.sleep(0.5)
    os._exit(0)
(directory / "child").write_text(str(child))
"""
_READY = """
print("ready", flush=True)
"""
_FOR_EVER = """
while True:
    signal.sigwait([signal.SIGTERM])
"""


@contextmanager
def keeper(directory: Path, *script: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that keeps a microVM, but for the microVM."""
    blocked = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"
    code = "\n".join([blocked, _KEEPER, *script])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_stop_returns_when_the_process_that_keeps_it_is_gone(tmp_path: Path) -> None:
    with keeper(tmp_path, _READY, _SLOW) as process:
        stop(tmp_path)
        assert process.poll() == 0


def test_stop_returns_when_what_a_killed_process_had_started_is_gone(tmp_path: Path) -> None:
    with keeper(tmp_path, _DEAF, _READY, _FOR_EVER):
        child = int((tmp_path / "child").read_text())
        assert _is_python(child)
        stop(tmp_path, within=0.1)
        assert not is_running(tmp_path)
        assert not _is_python(child)


def test_stop_without_a_microvm_says_so(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no microVM runs there"):
        stop(tmp_path)
    (tmp_path / "pid").write_text(str(os.getpid()))
    with pytest.raises(HostError, match="no microVM runs there"):
        stop(tmp_path)


def test_to_ask_whether_it_runs_disturbs_nobody(tmp_path: Path) -> None:
    held = lock(tmp_path)
    assert is_running(tmp_path)
    os.close(held)
    assert not is_running(tmp_path)
    os.close(lock(tmp_path))


def _is_python(pid: int) -> bool:
    try:
        return b"python" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
