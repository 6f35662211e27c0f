"""The OCI runtime (crun or runc): command lines, and errors read from its log.

Command line: https://github.com/opencontainers/runc/blob/main/man/runc.8.md; crun takes the same.

The log of a command and the process of an exec are memory files, which the runtime opens through
/proc. They do not travel over the share, concurrent commands do not mix their errors, and a
container can be killed and deleted although its bundle is full or gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator, Sequence
from subprocess import DEVNULL
from typing import NamedTuple

from kuasar_agent.blocking import off_hub
from kuasar_agent.containerd import NAMESPACE
from kuasar_agent.errors import AgentError, DeadlineExceeded, NotFound, Unknown
from kuasar_agent.reaper import Adoption, Child, Exit, Reaper, StdioFds
from kuasar_agent.spans import traced

DEFAULT_ROOT = "/run/containerd/runc"

TIMEOUT = 60.0
"""Seconds after which a command counts as hung; an emulated guest needs one for the slowest."""

_KILLED_WITHIN = 5.0
_OUTPUT_LIMIT = 1 << 20


class RuntimeOptions(NamedTuple):
    """Options of a Create request for the runtime's command line."""

    no_pivot: bool = False
    no_new_keyring: bool = False


class RuntimeFailed(Unknown):
    """An error exit of the runtime; `text` is the runtime's own message."""

    def __init__(self, prefix: str, text: str) -> None:
        super().__init__(f"{prefix}: {text}")
        self.text = text


def find_runtime(*names: str) -> str:
    """Return the path of the first of these programs that is on PATH.

    Raises:
        NotFound: none of them is.
    """
    for name in filter(None, names):
        for path in _candidates(name):
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    raise NotFound(f"no OCI runtime found: {', '.join(filter(None, names))}")


def _candidates(name: str) -> list[str]:
    # shutil.which would do; its imports delay the agent's start by 2 ms, 30 in an emulated guest.
    if "/" in name:
        return [name]
    return [f"{directory}/{name}" for directory in os.get_exec_path()]


class OCIRuntime:
    """One runtime binary with its state directory.

    Every method blocks the greenlet while the command runs.

    Raises:
        RuntimeFailed: the command failed; the text is the runtime's.
        DeadlineExceeded: the command hung, and was killed.
    """

    def __init__(
        self, reaper: Reaper, binary: str, root: str = "", timeout: float = TIMEOUT
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
        stdio: StdioFds,
        *,
        pid_file: str,
        console_socket: str | None,
        options: RuntimeOptions,
    ) -> Child:
        """Create a container and return its init process, which gets `stdio`."""
        args = ["create", "--bundle", bundle, "--pid-file", pid_file]
        args += _console(console_socket)
        if options.no_pivot:
            args.append("--no-pivot")
        if options.no_new_keyring:
            args.append("--no-new-keyring")
        return self._run_for_child("OCI runtime create failed", [*args, id], stdio, pid_file)

    def exec(
        self,
        id: str,
        process: bytes,
        stdio: StdioFds,
        *,
        pid_file: str,
        console_socket: str | None = None,
    ) -> Child:
        """Start `process`, an OCI `Process` in JSON, in a running container."""
        with _memory_file("exec-process", process) as (_, path):
            args = ["exec", "--process", path, "--pid-file", pid_file, *_console(console_socket)]
            args += ["--detach", id]
            return self._run_for_child("OCI runtime exec failed", args, stdio, pid_file)

    def start(self, id: str) -> None:
        """Have the init process of a created container execute the program."""
        self._run("OCI runtime start failed", ["start", id])

    def kill(self, id: str, number: int, *, everyone: bool = False) -> None:
        """Send a signal to the init process, or with `everyone` to all of the container."""
        flags = ["--all"] if everyone else []
        self._run("OCI runtime kill failed", ["kill", *flags, id, str(number)])

    def pause(self, id: str) -> None:
        """Freeze every process of the container."""
        self._run("OCI runtime pause failed", ["pause", id])

    def resume(self, id: str) -> None:
        """Let frozen processes run again."""
        self._run("OCI runtime resume failed", ["resume", id])

    def checkpoint(self, id: str, flags: Sequence[str]) -> None:
        """Write the state of the container to files; `flags` are `Checkpoint.flags()`."""
        self._run("OCI runtime checkpoint failed", ["checkpoint", *flags, id])

    def delete(self, id: str) -> None:
        """Kill the container's processes and remove it; an unknown container counts as removed."""
        try:
            self._run("OCI runtime delete failed", ["delete", "--force", id])
        except RuntimeFailed as error:
            if "does not exist" not in error.text:
                raise

    def _run_for_child(
        self, prefix: str, args: Sequence[str], stdio: StdioFds, pid_file: str
    ) -> Child:
        """Run a command that leaves a child of the agent, dead or alive, and its pid in a file."""
        off_hub(_remove, pid_file)
        with self._reaper.adopting() as adoption:
            try:
                self._run(prefix, args, stdio)
                return _claim(adoption, prefix, pid_file)
            except AgentError:
                # A runtime that was killed may have left a process.
                with contextlib.suppress(RuntimeFailed):
                    _claim(adoption, prefix, pid_file).signal(signal.SIGKILL)
                raise

    @traced("runtime command")
    def _run(self, prefix: str, args: Sequence[str], stdio: StdioFds | None = None) -> None:
        # Memory files instead of pipes: a process that keeps one open after the command has ended
        # would hold up a reader.
        with _memory_file("runtime-log") as (log, path), _memory_file("runtime-output") as (out, _):
            command = [self.binary, "--root", self.root, "--log", path, "--log-format", "json"]
            started = self._spawn([*command, *args], stdio or (DEVNULL, out, out))
            exit = self._finish(prefix, started)
            if exit.status != 0:
                said = _read(out).decode(errors="replace").strip()
                said = said or f"{os.path.basename(self.binary)} exited with status {exit.status}"
                raise RuntimeFailed(prefix, _logged_error(_read(log)) or said)

    def _spawn(self, command: Sequence[str], stdio: StdioFds) -> Child:
        env = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        try:
            return self._reaper.spawn(command, stdio, env=env, new_session=False)
        except OSError as error:
            raise RuntimeFailed(f"cannot execute {self.binary}", str(error.strerror)) from None

    def _finish(self, prefix: str, command: Child) -> Exit:
        """Wait for the command; one that hangs is killed with its whole process group."""
        exit = command.wait_for(self._timeout)
        if exit is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)
            command.wait_for(_KILLED_WITHIN)
            raise DeadlineExceeded(f"{prefix}: no answer within {self._timeout:.0f} s")
        return exit


def _console(socket: str | None) -> list[str]:
    return [] if socket is None else ["--console-socket", socket]


@contextlib.contextmanager
def _memory_file(name: str, content: bytes = b"") -> Iterator[tuple[int, str]]:
    """Yield a descriptor, and the path by which another process of this pid namespace opens it."""
    fd = os.memfd_create(name)
    try:
        if content:
            os.pwrite(fd, content, 0)
        yield fd, f"/proc/{os.getpid()}/fd/{fd}"
    finally:
        os.close(fd)


def _read(fd: int) -> bytes:
    return os.pread(fd, _OUTPUT_LIMIT, 0)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _claim(adoption: Adoption, prefix: str, pid_file: str) -> Child:
    try:
        pid = off_hub(_read_pid, pid_file)
    except (OSError, ValueError) as error:
        raise RuntimeFailed(prefix, f"no pid in {pid_file}: {error}") from None
    try:
        return adoption.claim(pid)
    except ChildProcessError as error:
        raise RuntimeFailed(prefix, str(error)) from None


def _read_pid(path: str) -> int:
    with open(path) as file:
        return int(file.read())


def _logged_error(text: bytes) -> str | None:
    """Return the last error in a log of JSON lines, None where there is none."""
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if entry.get("level") == "error" and entry.get("msg"):
                return str(entry["msg"])
    return None
