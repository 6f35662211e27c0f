"""MicroVMs: QEMU with the guest image, the shared directory's server and the vsock back end."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from socket import socket
from types import TracebackType

import gevent
from gevent import subprocess

from kuasar_host import accel, share, vsock_transport
from kuasar_host.config import Config
from kuasar_host.errors import HostError
from kuasar_host.qemu import MONITOR, command_line
from kuasar_host.sandbox import Sandbox, lock
from kuasar_host.sockets import listen

_SUN_PATH = 107
_FILES = ("pid", "vm.json", "initrd", MONITOR, share.SOCKET)
_SOCKETS = (vsock_transport.TASK_SOCKET, vsock_transport.VHOST_SOCKET)
_LOG = "processes.log"
# Seconds between two looks for the end of a guest that boots.
_LOOK = 0.1


class MicroVM(Sandbox):
    """A running microVM; it ends with the `with` block, or with the process that booted it.

    The process must let gevent run: a greenlet reads the console.
    """

    def __init__(self, config: Config) -> None:
        """Use `boot`."""
        super().__init__(config.directory, config.echo)
        self.config = config
        self.sharefs = config.sharefs
        self._processes: list[subprocess.Popen[bytes]] = []
        self._held = contextlib.ExitStack()
        self._lock = -1

    @classmethod
    def boot(cls, config: Config) -> MicroVM:
        """Boot a microVM and wait until its agent answers.

        Raises:
            HostError: it does not; no process of it is left.

        Blocks: the greenlet, for `config.ready_within` seconds at most.
        """
        vm = cls(config)
        try:
            vm._start()
            vm._wait_until_ready()
        except _KvmFailed:
            vm.stop()
            if config.accelerator != "auto":
                raise
            accel.distrust(config.kernel)
            return cls.boot(config)
        except BaseException:
            vm.stop()
            raise
        return vm

    def __enter__(self) -> MicroVM:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def wait(self) -> None:
        """Wait until the guest ends.

        Raises:
            HostError: it panicked, or QEMU failed.

        Blocks: the greenlet.
        """
        status = self._processes[-1].wait()
        self.console.ended.wait()
        if self.console.panic is not None or status != 0:
            raise HostError(self._what_happened())

    def stop(self) -> None:
        """Kill the guest and the processes that serve it.

        Blocks: the greenlet, until they have ended.
        """
        for process in reversed(self._processes):
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes = []
        self._held.close()

    def _start(self) -> None:
        if shutil.which(accel.QEMU) is None:
            raise HostError(f"{accel.QEMU} is not installed (Debian: qemu-system-x86)")
        self._check_files()
        self.accelerator = accel.choose(self.config.accelerator, self.config.kernel)
        self._prepare_directory()
        # The sockets listen before their servers run, so that QEMU need not wait for those.
        with contextlib.ExitStack() as ours:
            vsock, inherited = self._start_vsock(ours)
            transports = [*vsock, *self._start_share(ours)]
            command = command_line(self.config, self.accelerator, self._initrd(), transports)
            self.started_at = time.monotonic()
            qemu = self._spawn(command, *inherited, stdout=subprocess.PIPE)
        assert qemu.stdout is not None
        gevent.spawn(self.console.follow, qemu.stdout)

    def _check_files(self) -> None:
        config = self.config
        root = [config.root.path] if config.root is not None else []
        for path in (config.kernel, *config.initrd, *root, *(disk.path for disk in config.disks)):
            if not path.exists():
                raise HostError(f"{path} does not exist")

    def _prepare_directory(self) -> None:
        if len(os.fsencode(f"{self.vsock}_{2**32}")) > _SUN_PATH:
            raise HostError(f"{self.directory}: too long for the unix sockets in it")
        try:
            self.shared.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.directory)
            self._held.callback(os.close, self._lock)
            for name in (*_FILES, *_SOCKETS):
                # A killed predecessor has left its own behind.
                (self.directory / name).unlink(missing_ok=True)
                self._held.callback((self.directory / name).unlink, missing_ok=True)
            (self.directory / "pid").write_text(str(os.getpid()))
            for name in ("console.log", _LOG):
                (self.directory / name).write_bytes(b"")
        except OSError as error:
            raise HostError(f"{self.directory}: {error.strerror}") from error

    def _start_vsock(self, ours: contextlib.ExitStack) -> tuple[list[str], list[int]]:
        """Start the vsock's server; return QEMU's options and the descriptors that it inherits."""
        task = ours.enter_context(self._listen(vsock_transport.TASK_SOCKET))
        reserved = vsock_transport.choose(self.config.vsock)
        if reserved is None:
            vhost = ours.enter_context(self._listen(vsock_transport.VHOST_SOCKET))
            back_end = vsock_transport.user_back_end(vhost.fileno(), task.fileno())
            self._spawn(back_end, vhost.fileno(), task.fileno())
            return vsock_transport.user_device(), []
        ours.callback(os.close, reserved.fd)
        self._spawn(vsock_transport.kernel_relay(reserved, task.fileno()), task.fileno())
        return vsock_transport.kernel_device(reserved), [reserved.fd]

    def _start_share(self, ours: contextlib.ExitStack) -> list[str]:
        """Start the shared directory's server, if it has one; return QEMU's options."""
        if self.config.sharefs == "9p":
            return share.ninep_device(self.shared.name)
        daemon = share.find_daemon()
        listener = ours.enter_context(self._listen(share.SOCKET))
        self._spawn(share.daemon(daemon, self.shared, listener.fileno()), listener.fileno())
        return share.virtiofs_device()

    def _listen(self, name: str) -> socket:
        return listen(self.directory / name)

    def _initrd(self) -> Path | None:
        """Return the one file that QEMU takes."""
        paths = [path.absolute() for path in self.config.initrd]
        if len(paths) < 2:
            return paths[0] if paths else None
        joined = self.directory / "initrd"
        with joined.open("wb") as target:
            for path in paths:
                with path.open("rb") as source:
                    shutil.copyfileobj(source, target)
        return joined

    def _spawn(
        self, command: Sequence[str], *inherited: int, stdout: int | None = None
    ) -> subprocess.Popen[bytes]:
        # The kernel kills it when this process dies, however that happens.
        with (self.directory / _LOG).open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                pass_fds=[*inherited, self._lock],
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.config.ready_within
        checking = gevent.spawn(self.wait_until_ready)
        try:
            while not checking.ready():
                ended = self.console.ended.is_set() or self.console.panic is not None
                if accel.FAILURE in self._log():
                    raise _KvmFailed(self._what_happened())
                if ended or time.monotonic() > deadline:
                    raise HostError(self._what_happened())
                checking.join(_LOOK)
        finally:
            checking.kill()
        checking.get()
        self._describe()

    def _what_happened(self) -> str:
        """Return one line with the reason, then the ends of the console and of the processes' log.

        Blocks: the greenlet, for a moment: the last words of a guest that panicked are awaited.
        """
        self.console.ended.wait(_LOOK)
        if self.console.panic is not None:
            first = "the guest panicked"
        elif self.console.ended.is_set():
            first = f"QEMU ended with status {self._processes[-1].wait()}"
        elif accel.FAILURE in self._log():
            first = "KVM cannot run this guest; emulation can (accelerator tcg)"
        else:
            first = f"the guest does not serve after {time.monotonic() - self.started_at:.0f} s"
        return "\n".join(filter(None, (first, self.console.tail(), self._log()[-1000:].strip())))

    def _log(self) -> str:
        return (self.directory / _LOG).read_text(errors="replace")


class _KvmFailed(HostError):
    """KVM gave up on the guest, although it had passed its test."""
