"""Streams over a path of the guest: a FIFO, a virtio-serial port or another device, a file.

virtio-serial ports: Linux drivers/char/virtio_console.c, virtio 1.2 section 5.3.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

import gevent

from kuasar_agent.blocking import off_hub
from kuasar_agent.devices import Device, Devices
from kuasar_agent.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Unknown,
)
from kuasar_agent.linux.files import read_text
from kuasar_agent.log import get_logger
from kuasar_agent.stdio.descriptors import ReadEnd, WriteEnd, hung_up
from kuasar_agent.stdio.pipes import grow_pipe
from kuasar_agent.stdio.sink import Sink, Source

log = get_logger(__name__)

T = TypeVar("T")

CHUNK = 64 * 1024

# Linux has no event for these: a reader opens a FIFO, a host connects to a port.
_PAUSE = 0.02


def find_serial_port(name: str, devices: Devices, within: float) -> str:
    """Return the device of the virtio-serial port called `name`, which may appear late.

    Raises: Unknown when it is not there `within` seconds.
    Blocks: the greenlet.
    """

    def find() -> str | None:
        for device in devices.list("virtio-ports"):
            if _name_of_port(device, devices.sysfs) == name:
                return device.node
        return None

    try:
        return devices.wait_until(find, f"virtio-serial port {name}", monotonic() + within)
    except DeadlineExceeded:
        # contract: vmm-task
        raise Unknown(f"failed to get serial dev of name {name}") from None


def _name_of_port(device: Device, sysfs: str) -> str | None:
    try:
        return read_text(f"{sysfs}{device.devpath}/name").strip()
    except OSError:
        # The name follows the port, with an event of its own; or it was unplugged in between.
        return None


def open_sink(path: str) -> Sink:
    """Open the far end of an output stream.

    Raises:
        FailedPrecondition: another program has the device open.
        InvalidArgument: the path cannot be opened otherwise.
    """
    mode = _mode(path)
    if stat.S_ISFIFO(mode):
        return FifoSink(path)
    if stat.S_ISCHR(mode):
        return DeviceSink(_open(path, os.O_WRONLY | os.O_NONBLOCK))
    return FileSink(_open(path, os.O_WRONLY | os.O_APPEND))


def open_source(path: str) -> Source:
    """Open the far end of an input stream. Raises: as `open_sink` does."""
    mode = _mode(path)
    if stat.S_ISFIFO(mode):
        return FifoSource(_open(path, os.O_RDONLY | os.O_NONBLOCK))
    if stat.S_ISCHR(mode):
        return DeviceSource(_open(path, os.O_RDONLY | os.O_NONBLOCK))
    return FileSource(_open(path, os.O_RDONLY))


class FifoSink(Sink):
    """A FIFO; it waits for a reader, and for the next one when that goes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._target: WriteEnd | None = None
        self._written = 0

    @property
    def taken(self) -> bool:
        return self._unread() == 0

    @property
    def progress(self) -> int:
        return self._written - self._unread()

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            target = self._connect()
            try:
                written = os.write(target.fd, rest)
            except BlockingIOError:
                target.wait()
            except BrokenPipeError:
                # Until another reader opens the FIFO. Our end stays open and keeps its bytes.
                gevent.sleep(_PAUSE)
            else:
                rest = rest[written:]
                self._written += written

    def finish(self) -> None:
        self._connect()
        # With the last end closed a FIFO forgets its bytes, and the reader that is there may go.
        pause = _PAUSE / 32
        while self._unread():
            gevent.sleep(pause)
            pause = min(2 * pause, _PAUSE)
        self.close()

    def close(self) -> None:
        if self._target is not None:
            self._target.close()
            self._target = None

    def _unread(self) -> int:
        return self._target.unread() if self._target is not None else 0

    def _connect(self) -> WriteEnd:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
        while self._target is None:
            try:
                self._target = WriteEnd(os.open(self._path, flags))
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                gevent.sleep(_PAUSE)
            else:
                grow_pipe(self._target.fd)
        return self._target


class FifoSource:
    """A FIFO; it ends when the last writer goes, but not before the first one has come."""

    def __init__(self, fd: int) -> None:
        self._input = ReadEnd(fd)

    def read(self) -> bytes:
        while not (data := self._input.read(CHUNK)):
            if hung_up(self._input.fd):
                return b""
            self._input.wait()
        return data

    def finish(self) -> None:
        self.close()

    def close(self) -> None:
        self._input.close()


class DeviceSink(Sink):
    """A virtio-serial port or another device; a port takes bytes while the host is connected."""

    def __init__(self, fd: int) -> None:
        self._target = WriteEnd(fd)

    def write(self, data: bytes) -> None:
        self._target.write_all(data)

    def finish(self) -> None:
        self.close()

    def close(self) -> None:
        self._target.close()


class DeviceSource:
    """A device; it ends when the host disconnects after it had sent something."""

    def __init__(self, fd: int) -> None:
        self._input = ReadEnd(fd)
        self._received = False

    def read(self) -> bytes:
        while not (data := self._input.read(CHUNK)):
            if self._received or not hung_up(self._input.fd):
                return b""
            gevent.sleep(_PAUSE)
        self._received = True
        return data

    def finish(self) -> None:
        self.close()

    def close(self) -> None:
        self._input.close()


class _File:
    """A regular file that threads work on.

    A thread that outlives its greenlet keeps the file open: another file could have the number by
    then.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = Lock()
        self._in_use = self._closed = False

    def descriptors(self) -> list[int]:
        return [self._fd] if self._in_use or not self._closed else []

    def finish(self) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if not (self._closed or self._in_use):
                os.close(self._fd)
            self._closed = True

    def _apply(self, function: Callable[..., T], *args: Any) -> T:
        """Return `function(fd, *args)`; to be called in a thread.

        Raises: ValueError once closed, and the function's errors.
        """
        with self._lock:
            if self._closed:
                raise ValueError("the file is closed")
            self._in_use = True
        try:
            return function(self._fd, *args)
        finally:
            self._done()

    def _done(self) -> None:
        with self._lock:
            self._in_use = False
            if self._closed:
                os.close(self._fd)


class FileSink(_File, Sink):
    """A regular file that output is appended to, in threads."""

    def write(self, data: bytes) -> None:
        off_hub(self._apply, _write_all, data)


class FileSource(_File):
    """A regular file that input is read from, from its start, in threads."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._offset = 0

    def read(self) -> bytes:
        # The position moves only once the bytes are here.
        data: bytes = off_hub(self._apply, os.pread, CHUNK, self._offset)
        self._offset += len(data)
        return data


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _mode(path: str) -> int:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise InvalidArgument(f"stdio {path}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise InvalidArgument(f"stdio {path}: is a directory")
    return mode


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        busy = error.errno == errno.EBUSY
        fault = FailedPrecondition if busy else InvalidArgument
        raise fault(f"stdio {path}: {error.strerror}") from None
