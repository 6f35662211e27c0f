"""Which output an exit is kept back for, with real pipes and the test as the process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from gevent.socket import AF_UNIX, SOCK_STREAM, socket

from kuasar_agent.devices import Devices
from kuasar_agent.stdio.channels import OutputChannel
from kuasar_agent.stdio.stdio import Stdio
from kuasar_agent.stdio.transports import Transports
from kuasar_agent.stdio.urls import StdioUrls
from kuasar_agent.stdio.vsock_ports import ListenerSink

GRACE = 0.3
LONG = 60.0
STREAM = "ttrpc+vsock://3:1024?streaming_id=x-stdout"


@pytest.fixture(autouse=True)
def hangs_end() -> Iterator[None]:
    with gevent.Timeout(30):
        yield


class Process:
    """Streams, and the end of the output pipe that a process would have."""

    def __init__(self, directory: Path, url: str, grace: float) -> None:
        self._directory = directory
        self.transports = Transports(
            self._listen, lambda _: True, Devices(str(directory)), drain_grace=grace
        )
        self.stdio = Stdio.open(StdioUrls("", url, ""), self.transports)
        self.pipe = os.dup(self.stdio.child_fds[1])
        self.stdio.start()

    @property
    def channel(self) -> OutputChannel:
        return self.transports.channels.outputs["x-stdout"]

    def dial(self, port: int) -> socket:
        peer = socket(AF_UNIX, SOCK_STREAM)
        peer.connect(f"{self._directory}/{port}")
        return peer

    def write(self, data: bytes) -> None:
        os.write(self.pipe, data)

    def exit(self) -> None:
        os.close(self.pipe)
        self.pipe = -1

    def _listen(self, port: int) -> socket:
        listener = socket(AF_UNIX, SOCK_STREAM)
        listener.bind(f"{self._directory}/{port}")
        listener.listen(8)
        return listener


@contextmanager
def process(directory: Path, url: str, grace: float = LONG) -> Iterator[Process]:
    running = Process(directory, url, grace)
    try:
        yield running
    finally:
        if running.pipe >= 0:
            running.exit()
        running.stdio.close()


class Reader:
    """A reader of a channel that takes bytes when it is told to."""

    def __init__(self, channel: OutputChannel, *, grants: bool) -> None:
        self.grants = grants
        self.channel = channel
        channel.attach(self)

    def preempt(self) -> None:
        raise NotImplementedError

    def take(self, size: int) -> None:
        self.channel.consume(len(self.channel.peek(size)))

    def leave(self) -> None:
        self.channel.detach(self)


@pytest.mark.parametrize("place", ["vsock://3:1", STREAM, "fifo"])
def test_without_output_there_is_nothing_to_wait_for(tmp_path: Path, place: str) -> None:
    with process(tmp_path, url(tmp_path, place)) as silent:
        silent.exit()
        assert silent.stdio.settle()


def url(directory: Path, place: str) -> str:
    if place != "fifo":
        return place
    path = str(directory / "fifo")
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("place", ["vsock://3:1", STREAM, "fifo"])
def test_without_a_reader_the_grace_is_waited_once(tmp_path: Path, place: str) -> None:
    with process(tmp_path, url(tmp_path, place), GRACE) as unheard:
        unheard.write(b"hello")
        unheard.exit()
        began = time.monotonic()
        assert not unheard.stdio.settle()
        assert time.monotonic() - began >= GRACE
        # A deletion looks once more and does not wait: no event tells that from a short wait.
        with gevent.Timeout(GRACE):
            assert not unheard.stdio.settle()


def test_a_port_s_reader_has_taken_the_output_when_its_socket_is_read(tmp_path: Path) -> None:
    with process(tmp_path, "vsock://3:1") as heard, heard.dial(1) as peer:
        heard.write(b"hello")
        heard.exit()
        settling = gevent.spawn(heard.stdio.settle)
        gevent.sleep(0.1)
        assert not settling.ready()
        assert peer.recv(100) == b"hello"
        assert settling.get()
        assert peer.recv(100) == b""


def test_a_reader_behind_a_hypervisor_is_given_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ListenerSink, "moment", 0.2)
    with process(tmp_path, "vsock://3:1") as heard, heard.dial(1) as peer:
        heard.write(b"hello")
        heard.exit()
        assert peer.recv(100) == b"hello"
        began = time.monotonic()
        assert heard.stdio.settle()
        assert time.monotonic() - began >= 0.2


def test_a_fifo_s_reader_has_taken_the_output_when_the_fifo_is_empty(tmp_path: Path) -> None:
    path = url(tmp_path, "fifo")
    with process(tmp_path, path) as heard:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        heard.write(b"hello")
        heard.exit()
        settling = gevent.spawn(heard.stdio.settle)
        gevent.sleep(0.1)
        assert not settling.ready()
        assert os.read(reader, 100) == b"hello"
        assert settling.get()
        os.close(reader)


def test_a_stream_s_reader_has_taken_the_output_when_it_leaves_after_the_end(
    tmp_path: Path,
) -> None:
    with process(tmp_path, STREAM) as heard:
        reader = Reader(heard.channel, grants=True)
        heard.write(b"hello")
        heard.exit()
        settling = gevent.spawn(heard.stdio.settle)
        while heard.channel.empty:
            gevent.sleep(0.001)
        reader.take(100)
        gevent.sleep(0.1)
        assert not settling.ready()
        reader.leave()
        assert settling.get()


@pytest.mark.parametrize("grants", [False, True])
def test_a_reader_that_is_slow_is_waited_for(tmp_path: Path, grants: bool) -> None:
    with process(tmp_path, STREAM, GRACE) as heard:
        reader = Reader(heard.channel, grants=grants)
        heard.write(b"0123456789")
        heard.exit()
        settling = gevent.spawn(heard.stdio.settle)
        for _ in range(10):
            # Each time less than the grace, in all far more.
            gevent.sleep(GRACE / 2)
            assert not settling.ready()
            reader.take(1)
        reader.leave()
        assert settling.get()


def test_a_child_that_holds_the_pipe_open_delays_nothing(tmp_path: Path) -> None:
    with process(tmp_path, "vsock://3:1") as parent, parent.dial(1) as peer:
        parent.write(b"hello")
        assert peer.recv(100) == b"hello"
        assert parent.stdio.settle()
        # Its output is still carried.
        parent.write(b"child")
        assert peer.recv(100) == b"child"


def test_output_before_the_exit_of_a_parent_is_waited_for(tmp_path: Path) -> None:
    with process(tmp_path, "vsock://3:1") as parent:
        parent.write(b"hello")
        settling = gevent.spawn(parent.stdio.settle)
        gevent.sleep(0.2)
        assert not settling.ready()
        with parent.dial(1) as peer:
            assert peer.recv(100) == b"hello"
            assert settling.get()
