"""The vsock back end as the tests run it, and its clients."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

from kuasar_host.sockets import short_path
from kuasar_host.vsock.__main__ import main
from kuasar_host.vsock.packet import Op
from tests.support.forked import Forked
from tests.support.timeouts import IN_PROCESS
from tests.support.vsock.driver import GUEST_CID, Driver, Stream


class Backend:
    """`python -m kuasar_host.vsock`, forked off: a hundred tests start one each."""

    def __init__(self, directory: Path) -> None:
        self.vhost = directory / "vhost.sock"
        self.uds = directory / "task.vsock"
        words = ["--cid", str(GUEST_CID)]
        words += ["--vhost", os.fspath(self.vhost), "--uds", os.fspath(self.uds)]
        self.process = Forked(lambda: _serve(words))
        try:
            self._await()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _await(self) -> None:
        # Once it has served a client it has opened all that it will keep open.
        end = time.monotonic() + IN_PROCESS
        while not self._serves():
            assert self.process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)

    def _serves(self) -> bool:
        try:
            return self.client(b"CONNECT 1\n").recv(1) == b""
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def client(self, line: bytes) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(IN_PROCESS)
        with short_path(self.uds) as name:
            sock.connect(name)
        sock.sendall(line)
        return sock

    def open(self, driver: Driver, port: int, space: int = 65536) -> tuple[socket.socket, Stream]:
        """A client's connection to a port on which the guest listens."""
        client = self.client(b"CONNECT %d\n" % port)
        stream = accept(driver, port, space)
        assert read_line(client) == b"OK %d\n" % stream.host_port
        return client, stream

    def open_descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def stop(self) -> None:
        assert self.process.poll() is None, "the back end died"
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(IN_PROCESS) == 0


def _serve(words: list[str]) -> None:
    sys.argv[1:] = words
    main()


def accept(driver: Driver, port: int, space: int = 65536) -> Stream:
    """The guest takes the connection that the host asks for."""
    # What is left of earlier connections, a request of an impatient client included, comes first.
    while (request := driver.receive()).op != Op.REQUEST or request.header.dst_port != port:
        pass
    stream = Stream(driver, request.header.src_port, port, space)
    stream.note(request)
    stream.send(Op.RESPONSE)
    return stream


def read_line(sock: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = sock.recv(1)
        if not piece:
            return line
        line += piece
    return line


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data
