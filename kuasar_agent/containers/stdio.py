"""The three standard streams of one process: pipes towards it, transports towards the host.

The runtime gets one end of each pipe; a greenlet per stream copies between the other end and its
transport. A transport that does not keep up fills the pipe, and then the process waits: that is
the back-pressure, and nothing is buffered beyond it.
"""

from __future__ import annotations

import os
from typing import Generic, TypeVar

import gevent
from gevent.os import make_nonblocking, nb_read, nb_write

from kuasar_agent.containers.bundle import StdioUrls
from kuasar_agent.containers.transports import CHUNK, Sink, Source, StreamPorts
from kuasar_agent.log import get_logger

log = get_logger(__name__)

End = TypeVar("End", bound=Sink | Source)


class Stdio:
    """Owns every descriptor it makes; `close` may be called at any time, more than once."""

    def __init__(self) -> None:
        self.child_fds: list[int] = []
        """What the process gets as 0, 1 and 2, until `start`."""
        self._outputs: list[_Output] = []
        self._input: _Input | None = None

    @classmethod
    def open(cls, urls: StdioUrls, ports: StreamPorts, owner: tuple[int, int] = (0, 0)) -> Stdio:
        """Open pipes and transports for the URLs; the process's pipe ends belong to `owner`.

        Raises what the transports raise; nothing stays open then.
        """
        stdio = cls()
        try:
            stdio._open_input(urls.stdin, ports, owner)
            for url in (urls.stdout, urls.stderr):
                stdio._open_output(url, ports, owner)
        except BaseException:
            stdio.close()
            raise
        return stdio

    def start(self) -> None:
        """The process has its ends: close ours of them and begin to copy."""
        self._close_child_fds()
        for stream in self._streams():
            stream.start()

    def drain(self, grace: float) -> bool:
        """Wait until all output was delivered, at most `grace` seconds; False when some is left."""
        copiers = [stream.copier for stream in self._outputs if stream.copier is not None]
        gevent.joinall(copiers, timeout=grace)
        return all(copier.ready() for copier in copiers)

    def close(self) -> None:
        """Give every descriptor back; output that was not delivered is dropped."""
        self._close_child_fds()
        for stream in self._streams():
            stream.close()

    def _streams(self) -> list[_Output | _Input]:
        return [*self._outputs, *([self._input] if self._input else [])]

    def _open_input(self, url: str, ports: StreamPorts, owner: tuple[int, int]) -> None:
        if not url:
            self.child_fds.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            return
        source = ports.source(url)
        theirs, ours = os.pipe()
        self._input = _Input(ours, source)
        self.child_fds.append(theirs)
        os.fchown(theirs, *owner)

    def _open_output(self, url: str, ports: StreamPorts, owner: tuple[int, int]) -> None:
        if not url:
            self.child_fds.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
            return
        sink = ports.sink(url)
        ours, theirs = os.pipe()
        self._outputs.append(_Output(ours, sink))
        self.child_fds.append(theirs)
        os.fchown(theirs, *owner)

    def _close_child_fds(self) -> None:
        for fd in self.child_fds:
            os.close(fd)
        self.child_fds = []


class _Stream(Generic[End]):
    """A pipe end, the transport it is copied to or from, and the greenlet that copies."""

    def __init__(self, fd: int, transport: End) -> None:
        make_nonblocking(fd)
        self.fd = fd
        self.transport = transport
        self.copier: gevent.Greenlet[[], None] | None = None
        self._open = True

    def start(self) -> None:
        self.copier = gevent.spawn(self._run)

    def close(self) -> None:
        if self.copier is not None:
            self.copier.kill()
        self._release()

    def _run(self) -> None:
        try:
            self._copy()
        except OSError as error:
            log.warning("stream failed", error=error)
        finally:
            self._release()

    def _copy(self) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        if self._open:
            self._open = False
            self.transport.close()
            os.close(self.fd)


class _Output(_Stream[Sink]):
    """Ends when every writer has closed the pipe."""

    def _copy(self) -> None:
        while data := nb_read(self.fd, CHUNK):
            self.transport.write(data)
        self.transport.finish()


class _Input(_Stream[Source]):
    """Ends when the source does, or when nobody reads the pipe any more."""

    def _copy(self) -> None:
        try:
            while data := self.transport.read():
                view = memoryview(data)
                while view:
                    view = view[nb_write(self.fd, view) :]
        except BrokenPipeError:
            pass
