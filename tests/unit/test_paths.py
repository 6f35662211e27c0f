"""Streams over a path: what a FIFO keeps."""

from __future__ import annotations

import os
from pathlib import Path

import gevent

from kuasar_agent.containers.paths import open_sink


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
