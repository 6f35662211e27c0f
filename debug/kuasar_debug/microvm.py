"""A microVM: QEMU with the guest image, its shared directory and its vsock.

    D/shared        shared with the guest under the tag `kuasar`
    D/task.vsock    hybrid vsock: `CONNECT <port>\\n`, then `OK <port>\\n`, then the guest
    D/console.log   the guest's console
    D/pid           the process that keeps the microVM

as Kuasar lays out a Cloud Hypervisor sandbox.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import gevent
from gevent import subprocess

from kuasar_agent.api import sandbox_pb2
from kuasar_agent.ttrpc import Client, ConnectionClosed, StatusError, connect
from kuasar_debug import accel
from kuasar_debug.console import Console
from kuasar_debug.errors import DebugError

VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
TASK_PORT = 1024
_SUN_PATH = 107
_KERNEL_WORDS = (
    "console=ttyS0 panic=-1 quiet cryptomgr.notests tsc=reliable no_timer_check rdinit=/init"
)


@dataclass(frozen=True)
class Config:
    """How to boot; memory in MiB, times in seconds."""

    directory: Path
    kernel: Path
    initrd: Sequence[Path]
    """More than one are concatenated; an uncompressed one has to come first."""
    accelerator: str = "auto"
    sharefs: str = "virtiofs"
    memory: int = 512
    cpus: int = 1
    append: str = ""
    ready_within: float = 120.0
    echo: Callable[[str], None] | None = field(default=None, compare=False)
    """Gets every line of the console."""


class MicroVM:
    """A running microVM; ends with the `with` block, or with the process that made it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.directory = config.directory
        self.shared = config.directory / "shared"
        self.vsock = config.directory / "task.vsock"
        self.started_at = 0.0
        """When QEMU was executed, on time.monotonic()'s clock."""
        self.ready_at = 0.0
        self.accelerator = accel.choose(config.accelerator, _existing(config.kernel))
        self.console = Console(config.directory / "console.log", config.echo)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = -1

    @classmethod
    def boot(cls, config: Config) -> MicroVM:
        """Boot and wait until the agent answers. Raises DebugError, with nothing left running."""
        vm = cls(config)
        try:
            vm._start()
            vm._wait_until_ready()
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

    def address(self, port: int = TASK_PORT) -> str:
        return f"hvsock://{self.vsock}:{port}"

    def connect(self, timeout: float = 10.0) -> Client:
        """A ttrpc client of the agent. Raises OSError when it does not answer in time."""
        return connect(self.address(), timeout)

    def wait(self) -> None:
        """Until the guest ends."""
        self._processes[-1].wait()

    def stop(self) -> None:
        """End the guest and everything that served it."""
        for process in reversed(self._processes):
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes = []
        if self._lock >= 0:
            for name in ("task.vsock", "vhost.sock", "share.sock", "pid"):
                (self.directory / name).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def _start(self) -> None:
        self._prepare_directory()
        share = self._start_share()
        self._start_vsock()
        qemu = self._spawn(self._qemu_command(share), stdout=subprocess.PIPE)
        self.started_at = time.monotonic()
        assert qemu.stdout is not None
        gevent.spawn(self.console.follow, qemu.stdout)

    def _prepare_directory(self) -> None:
        self.shared.mkdir(parents=True, exist_ok=True)
        if len(f"{self.vsock}_{2**32}") > _SUN_PATH:
            raise DebugError(f"{self.directory}: too long for the unix sockets in it")
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise DebugError(f"{self.directory}: a microVM runs there already") from None
        self._lock = lock
        (self.directory / "pid").write_text(str(os.getpid()))
        (self.directory / "console.log").write_bytes(b"")

    def _start_share(self) -> list[str]:
        """QEMU's options for the shared directory."""
        if self.config.sharefs == "9p":
            local = f"local,id=share,path={self.shared},security_model=none"
            return ["-fsdev", local, "-device", "virtio-9p-pci,fsdev=share,mount_tag=kuasar"]
        socket = self.directory / "share.sock"
        socket.unlink(missing_ok=True)
        options = ["-o", f"source={self.shared}", "-o", "cache=auto", "-o", "sandbox=chroot"]
        self._spawn([str(_existing(VIRTIOFSD)), f"--socket-path={socket}", *options])
        self._await_socket(socket)
        device = "vhost-user-fs-pci,chardev=share,tag=kuasar,queue-size=1024"
        return ["-chardev", f"socket,id=share,path={socket}", "-device", device]

    def _start_vsock(self) -> None:
        vhost = self.directory / "vhost.sock"
        for path in (vhost, self.vsock):
            path.unlink(missing_ok=True)
        command = [sys.executable, "-m", "kuasar_debug.vsock"]
        self._spawn([*command, "--vhost", str(vhost), "--uds", str(self.vsock), "--cid", "3"])
        self._await_socket(vhost)

    def _qemu_command(self, share: list[str]) -> list[str]:
        if shutil.which(accel.QEMU) is None:
            raise DebugError(f"{accel.QEMU} is not installed (Debian: qemu-system-x86)")
        memory = f"memory-backend-memfd,id=mem,size={self.config.memory}M,share=on"
        words = f"{_KERNEL_WORDS} task.sharefs_type={self.config.sharefs} {self.config.append}"
        return [
            accel.QEMU,
            *accel.arguments(self.accelerator),
            *("-M", "q35,memory-backend=mem", "-object", memory),
            *("-m", f"{self.config.memory}M", "-smp", str(self.config.cpus)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
            "-no-reboot",
            *("-kernel", str(self.config.kernel), "-initrd", str(self._initrd())),
            *("-chardev", f"socket,id=vsock,path={self.directory / 'vhost.sock'}"),
            *("-device", "vhost-user-vsock-pci,chardev=vsock"),
            *share,
            *("-append", words.strip()),
        ]

    def _initrd(self) -> Path:
        paths = [_existing(path) for path in self.config.initrd]
        if len(paths) == 1:
            return paths[0]
        joined = self.directory / "initrd"
        joined.write_bytes(b"".join(path.read_bytes() for path in paths))
        return joined

    def _spawn(self, command: Sequence[str], stdout: int | None = None) -> subprocess.Popen[bytes]:
        # The kernel kills it when this process dies, however that happens.
        with (self.directory / "processes.log").open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _await_socket(self, path: Path) -> None:
        process = self._processes[-1]
        with gevent.Timeout(10, DebugError(f"{path.name}: nobody listens after 10 s")):
            while not path.exists():
                if process.poll() is not None:
                    log = (self.directory / "processes.log").read_text(errors="replace")
                    raise DebugError(f"{path.name}: its server ended at once:\n{log[-2000:]}")
                gevent.sleep(0.01)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.config.ready_within
        self.console.changed.wait(self.config.ready_within)
        if not self.console.serving:
            raise DebugError(f"the guest does not serve; its console ends:\n{self._last_words()}")
        check = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"]
        while time.monotonic() < deadline:
            try:
                with self.connect(timeout=deadline - time.monotonic()) as client:
                    client.stub(check).check(sandbox_pb2.CheckRequest(), timeout=1)
            except (OSError, ConnectionClosed, StatusError):
                continue
            self.ready_at = time.monotonic()
            return
        raise DebugError(f"the agent does not answer; the console ends:\n{self._last_words()}")

    def _last_words(self) -> str:
        log = (self.directory / "processes.log").read_text(errors="replace")
        return f"{self.console.tail()}\n{log[-1000:]}".strip()


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DebugError(f"{path} does not exist (`make image` builds the guest's files)")
    return path
