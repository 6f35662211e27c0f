"""Streams over a path: what a FIFO keeps, and what a file gets."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import gevent
import pytest

from kuasar_agent.stdio import guest_paths
from kuasar_agent.stdio.guest_paths import FileSink, open_sink


def test_a_fifo_keeps_its_bytes_when_the_reader_of_that_moment_goes(tmp_path: Path) -> None:
    path = str(tmp_path / "stdout")
    os.mkfifo(path)
    first = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = open_sink(path)
    sink.write(b"last words")
    finishing = gevent.spawn(sink.finish)
    gevent.idle()
    os.close(first)
    second = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(second, 100) == b"last words"
    finishing.get(timeout=60)
    assert os.read(second, 100) == b""
    os.close(second)


def test_a_write_that_outlives_its_sink_reaches_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As slow as a stuck share can make it.
    begun, go_on, write_all = threading.Event(), threading.Event(), guest_paths._write_all

    def slow(fd: int, data: bytes) -> None:
        begun.set()
        go_on.wait()
        write_all(fd, data)

    monkeypatch.setattr(guest_paths, "_write_all", slow)
    sink = FileSink(os.open(tmp_path / "its own", os.O_WRONLY | os.O_CREAT))
    writing = gevent.spawn(sink.write, b"x")
    while not begun.is_set():
        gevent.sleep(0.001)
    writing.kill()
    sink.close()
    other = os.open(tmp_path / "another", os.O_WRONLY | os.O_CREAT)
    go_on.set()
    gevent.get_hub().threadpool.join()
    assert (tmp_path / "another").read_bytes() == b""
    assert (tmp_path / "its own").read_bytes() == b"x"
    os.close(other)


def test_a_write_that_found_no_thread_before_the_end_does_not_begin(tmp_path: Path) -> None:
    pool = gevent.get_hub().threadpool
    held = threading.Event()
    for _ in range(pool.maxsize):
        pool.spawn(held.wait)
    sink = FileSink(os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT))
    writing = gevent.spawn(sink.write, b"late")
    gevent.idle()
    writing.kill()
    sink.close()
    held.set()
    pool.join()
    assert (tmp_path / "out").read_bytes() == b""
