"""Booting a microVM: QEMU with the guest image, a shared directory and vsock."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from types import TracebackType

import gevent
from gevent import subprocess

from kuasar_agent.api import sandbox_pb2
from kuasar_agent.ttrpc import StatusError
from kuasar_host import accel, share, vsock_transport
from kuasar_host.errors import DebugError
from kuasar_host.root_disk import RootDisk
from kuasar_host.sandbox import Sandbox, lock
from kuasar_host.sockets import listen

_SUN_PATH = 107
_KERNEL_WORDS = (
    "console=ttyS0 panic=-1 quiet cryptomgr.notests tsc=reliable no_timer_check rdinit=/init"
)
_FILES = ("pid", "vm.json", "initrd", "qmp.sock", share.SOCKET)
_SOCKETS = (vsock_transport.TASK_SOCKET, vsock_transport.VHOST_SOCKET)


@dataclass(frozen=True)
class Config:
    """How to boot; memory in MiB, times in seconds."""

    directory: Path
    kernel: Path
    initrd: Sequence[Path]
    """More than one are concatenated; an uncompressed one has to come first."""
    root: RootDisk | None = None
    """Boot from this; an initrd then only has to mount it, and a kernel may do without."""
    accelerator: str = "auto"
    sharefs: str = "virtiofs"
    vsock: str = "auto"
    """`kernel` is the host's vhost-vsock, `user` the back end of this package."""
    memory: int = 512
    cpus: int = 1
    root_ports: int = 0
    """Empty PCIe slots `rp1`, `rp2`, … for devices that are plugged in later."""
    arguments: Sequence[str] = ()
    """More of QEMU's options; a `-m` or `-smp` among them adds to the one that is there."""
    append: str = ""
    ready_within: float = 120.0
    echo: Callable[[str], None] | None = field(default=None, compare=False)
    """Gets every line of the console."""


class MicroVM(Sandbox):
    """A running microVM; ends with the `with` block, or with the process that made it.

    The process must let gevent run: the console is read by a greenlet.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config.directory, config.echo)
        self.config = config
        self.sharefs = config.sharefs
        self._processes: list[subprocess.Popen[bytes]] = []
        self._held = contextlib.ExitStack()
        self._lock = -1

    @classmethod
    def boot(cls, config: Config) -> MicroVM:
        """Boot and wait until the agent answers. Raises DebugError, with nothing left running."""
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
        """Until the guest ends. Raises DebugError unless it was switched off."""
        status = self._processes[-1].wait()
        self.console.ended.wait()
        if self.console.panic is not None or status != 0:
            raise DebugError(self._what_happened())

    def stop(self) -> None:
        """End the guest and everything that served it."""
        for process in reversed(self._processes):
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes = []
        self._held.close()

    def _start(self) -> None:
        if shutil.which(accel.QEMU) is None:
            raise DebugError(f"{accel.QEMU} is not installed (Debian: qemu-system-x86)")
        self.accelerator = accel.choose(self.config.accelerator, _existing(self.config.kernel))
        self._prepare_directory()
        # Sockets that listen before their servers run: QEMU need not wait for those.
        with contextlib.ExitStack() as ours:
            task = ours.enter_context(self._listen(vsock_transport.TASK_SOCKET))
            reserved = vsock_transport.choose(self.config.vsock)
            if reserved is None:
                vhost = ours.enter_context(self._listen(vsock_transport.VHOST_SOCKET))
                back_end = vsock_transport.user_back_end(vhost.fileno(), task.fileno())
                self._spawn(back_end, vhost.fileno(), task.fileno())
                devices = vsock_transport.user_device()
                inherited = []
            else:
                ours.callback(os.close, reserved.fd)
                self._spawn(vsock_transport.kernel_relay(reserved, task.fileno()), task.fileno())
                devices = vsock_transport.kernel_device(reserved)
                inherited = [reserved.fd]
            devices += self._start_share(ours)
            self.started_at = time.monotonic()
            command = self._qemu_command(devices)
            qemu = self._spawn(command, *inherited, stdout=subprocess.PIPE)
        assert qemu.stdout is not None
        gevent.spawn(self.console.follow, qemu.stdout)

    def _prepare_directory(self) -> None:
        if len(os.fsencode(f"{self.vsock}_{2**32}")) > _SUN_PATH:
            raise DebugError(f"{self.directory}: too long for the unix sockets in it")
        try:
            self.shared.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.directory)
            self._held.callback(os.close, self._lock)
            for name in (*_FILES, *_SOCKETS):
                # A killed predecessor has left its own behind.
                (self.directory / name).unlink(missing_ok=True)
                self._held.callback((self.directory / name).unlink, missing_ok=True)
            (self.directory / "pid").write_text(str(os.getpid()))
            for name in ("console.log", "processes.log"):
                (self.directory / name).write_bytes(b"")
        except OSError as error:
            raise DebugError(f"{self.directory}: {error.strerror}") from error

    def _listen(self, name: str) -> socket:
        return listen(self.directory / name)

    def _start_share(self, ours: contextlib.ExitStack) -> list[str]:
        """QEMU's options for the shared directory."""
        if self.config.sharefs == "9p":
            return share.ninep_device(self.shared.name)
        _existing(share.VIRTIOFSD, "Debian: qemu-system-common")
        listener = ours.enter_context(self._listen(share.SOCKET))
        self._spawn(share.daemon(self.shared, listener.fileno()), listener.fileno())
        return share.virtiofs_device()

    def _qemu_command(self, devices: list[str]) -> list[str]:
        memory = f"memory-backend-memfd,id=mem,size={self.config.memory}M,share=on"
        words = [_KERNEL_WORDS, f"task.sharefs_type={self.config.sharefs}", self.config.append]
        root = self.config.root
        if root is not None:
            _existing(root.path)
            words.insert(1, root.words())
            devices = [*root.devices(), *devices]
        for number in range(1, self.config.root_ports + 1):
            port = f"pcie-root-port,id=rp{number},chassis={number},slot={number}"
            devices += ["-device", port]
        return [
            accel.QEMU,
            *accel.arguments(self.accelerator),
            *("-M", "q35,memory-backend=mem", "-object", memory),
            *("-m", f"{self.config.memory}M{root.memory() if root else ''}"),
            *("-smp", str(self.config.cpus)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
            *("-qmp", "unix:qmp.sock,server=on,wait=off", "-no-reboot"),
            *("-kernel", str(self.config.kernel.absolute())),
            *(("-initrd", str(self._initrd())) if self.config.initrd else ()),
            *devices,
            *self.config.arguments,
            *("-append", " ".join(words).strip()),
        ]

    def _initrd(self) -> Path:
        paths = [_existing(path).absolute() for path in self.config.initrd]
        if len(paths) == 1:
            return paths[0]
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
        with (self.directory / "processes.log").open("ab") as log:
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
        while not self.console.changed.wait(0.5) and time.monotonic() < deadline:
            if accel.FAILURE in self._log():
                raise _KvmFailed(self._what_happened())
        if not self.console.serving:
            raise (_KvmFailed if accel.FAILURE in self._log() else DebugError)(
                self._what_happened()
            )
        check = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]
        while time.monotonic() < deadline and not self.console.ended.is_set():
            try:
                with self.connect(timeout=1) as client:
                    client.stub(check).check(sandbox_pb2.CheckRequest(), timeout=1)
            except (OSError, StatusError):
                continue
            self.ready_at = time.monotonic()
            self._describe()
            return
        raise DebugError(self._what_happened())

    def _what_happened(self) -> str:
        """One line that says it, then the end of the console and of what the processes said."""
        if self.console.panic is not None:
            first = "the guest panicked"
        elif self.console.ended.is_set():
            first = f"QEMU ended with status {self._processes[-1].wait()}"
        elif accel.FAILURE in self._log():
            first = "KVM cannot run this guest (try --accel tcg)"
        else:
            first = f"the guest does not serve after {time.monotonic() - self.started_at:.0f} s"
        return "\n".join(filter(None, (first, self.console.tail(), self._log()[-1000:].strip())))

    def _log(self) -> str:
        return (self.directory / "processes.log").read_text(errors="replace")


class _KvmFailed(DebugError):
    """KVM gave up on the guest, although it had passed its test."""


def _existing(path: Path, remedy: str = "`make image` builds the guest's files") -> Path:
    if not path.exists():
        raise DebugError(f"{path} does not exist ({remedy})")
    return path
