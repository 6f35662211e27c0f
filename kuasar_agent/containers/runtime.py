"""The OCI runtime (crun or runc) as a command: exact arguments, errors from its own log.

Command line: https://github.com/opencontainers/runc/blob/main/man/runc.8.md; crun takes the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Sequence
from subprocess import DEVNULL

from kuasar_agent.blocking import off_hub
from kuasar_agent.reaper import Child, Exit, Reaper
from kuasar_agent.spans import traced
from kuasar_agent.ttrpc.status import DeadlineExceeded, NotFound, Unknown

DEFAULT_ROOT = "/run/containerd/runc"
NAMESPACE = "k8s.io"

# An emulated guest needs a second for the slowest command; a runtime that takes this long hangs.
_TIMEOUT = 60.0
_KILLED_WITHIN = 5.0
_OUTPUT_LIMIT = 1 << 20


class RuntimeFailed(Unknown):
    """The runtime exited with an error; `text` is what it said about it."""

    def __init__(self, prefix: str, text: str) -> None:
        super().__init__(f"{prefix}: {text}")
        self.text = text


def find_runtime(*names: str) -> str:
    """The first of these programs that is on PATH. Raises NotFound when none is."""
    for name in filter(None, names):
        if path := shutil.which(name):
            return path
    raise NotFound(f"no OCI runtime found: {', '.join(filter(None, names))}")


class OCIRuntime:
    """One runtime binary with its state directory.

    Every method raises RuntimeFailed with the runtime's own words, and DeadlineExceeded when the
    command hangs (it is killed then).
    """

    def __init__(
        self, reaper: Reaper, binary: str, root: str = "", timeout: float = _TIMEOUT
    ) -> None:
        self.binary = binary
        self.root = f"{root or DEFAULT_ROOT}/{NAMESPACE}"
        self._reaper = reaper
        self._timeout = timeout

    @traced("runtime create")
    def create(
        self,
        id: str,
        bundle: str,
        stdio: tuple[int, int, int],
        *,
        pid_file: str,
        console_socket: str | None = None,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
    ) -> Child:
        """Create a container whose first process gets `stdio`; returns that process."""
        args = ["create", "--bundle", bundle, "--pid-file", pid_file]
        if console_socket is not None:
            args += ["--console-socket", console_socket]
        if no_pivot:
            args.append("--no-pivot")
        if no_new_keyring:
            args.append("--no-new-keyring")
        off_hub(_remove, pid_file)
        with self._reaper.adopting() as adoption:
            self._run("OCI runtime create failed", bundle, [*args, id], stdio)
            pid = off_hub(_read_pid, pid_file)
            try:
                return adoption.claim(pid)
            except ChildProcessError as error:
                raise RuntimeFailed("OCI runtime create failed", str(error)) from None

    def start(self, id: str, bundle: str) -> None:
        """Let a created container's process execute the user's program."""
        self._run("OCI runtime start failed", bundle, ["start", id])

    def kill(self, id: str, bundle: str, number: int, *, everyone: bool = False) -> None:
        """Send a signal to the first process, or with `everyone` to all of the container."""
        flags = ["--all"] if everyone else []
        self._run("OCI runtime kill failed", bundle, ["kill", *flags, id, str(number)])

    def delete(self, id: str, bundle: str) -> None:
        """Remove the container, killing what still runs; one that is unknown counts as removed."""
        try:
            self._run("OCI runtime delete failed", bundle, ["delete", "--force", id])
        except RuntimeFailed as error:
            if "does not exist" not in error.text:
                raise

    @traced("runtime command")
    def _run(
        self,
        prefix: str,
        bundle: str,
        args: Sequence[str],
        stdio: tuple[int, int, int] | None = None,
    ) -> None:
        log = f"{bundle}/log.json"
        offset = off_hub(_size, log)
        command = [self.binary, "--root", self.root, "--log", log]
        command += ["--log-format", "json", *args]
        # A memory file, not a pipe: nobody has to read it, and a process that keeps it open
        # after the command ended holds nothing up.
        with open(os.memfd_create("runtime-output"), "rb", buffering=0) as output:
            stdin, stdout, stderr = stdio or (DEVNULL, output.fileno(), output.fileno())
            exit = self._finish(prefix, self._spawn(command, stdin, stdout, stderr))
            if exit.status != 0:
                said = os.pread(output.fileno(), _OUTPUT_LIMIT, 0).decode(errors="replace").strip()
                said = said or f"{os.path.basename(self.binary)} exited with status {exit.status}"
                raise RuntimeFailed(prefix, off_hub(_logged_error, log, offset) or said)

    def _spawn(self, command: Sequence[str], stdin: int, stdout: int, stderr: int) -> Child:
        env = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        try:
            return self._reaper.spawn(command, stdin=stdin, stdout=stdout, stderr=stderr, env=env)
        except OSError as error:
            raise RuntimeFailed(f"cannot execute {self.binary}", str(error.strerror)) from None

    def _finish(self, prefix: str, command: Child) -> Exit:
        """The command's exit; one that hangs is killed with its whole process group."""
        exit = command.wait(self._timeout)
        if exit is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)
            command.wait(_KILLED_WITHIN)
            raise DeadlineExceeded(f"{prefix}: no answer within {self._timeout:.0f} s")
        return exit


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _logged_error(path: str, offset: int) -> str | None:
    """The last error in the part of the runtime's log that begins at `offset` bytes."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            lines = file.read(_OUTPUT_LIMIT).splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        with contextlib.suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if entry.get("level") == "error" and entry.get("msg"):
                return str(entry["msg"])
    return None


def _read_pid(path: str) -> int:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError) as error:
        raise RuntimeFailed("OCI runtime create failed", f"no pid in {path}: {error}") from None
