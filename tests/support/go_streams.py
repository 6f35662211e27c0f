"""containerd's own side of standard streams: the Go program tests/interop/go/streams."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gevent
from gevent import subprocess
from gevent.event import AsyncResult

from tests.support.go_build import BUILD, HERE, go_module_program

SOURCE = HERE / "go/streams"

VERSIONS = ("1.2.8", "1.2.9")
"""Of ttrpc: since 1.2.9 a client drops a stream that holds 64 messages for a second."""


@dataclass
class Answer:
    """What became of an order; see `Answer` in main.go."""

    name: str
    size: int
    sha256: str
    error: str
    exit: int
    waited: float
    ended: float


@cache
def build(version: str) -> Path:
    """Return the program with a version of ttrpc."""
    source = BUILD / "go-streams" / version
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(SOURCE / f"modules/ttrpc-{version}", source)
    shutil.copy(SOURCE / "main.go", source)
    return go_module_program(f"streams-{version}", source)


class GoStreams:
    """The running program; orders are carried out concurrently."""

    def __init__(self, version: str, address: Path, log: Path) -> None:
        """`address` is the agent's socket, `log` gets containerd's messages."""
        self._log = log
        self._answers: dict[str, AsyncResult[Answer]] = {}
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [build(version), str(address)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders = self._process.stdin
        self._output = self._process.stdout
        self._reader = gevent.spawn(self._read)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def begin(self, **order: Any) -> AsyncResult[Answer]:
        """Give an order, whose fields are those of `Order` in main.go."""
        name = str(len(self._answers))
        answer = self._answers[name] = AsyncResult()
        self._orders.write(json.dumps(order | {"name": name}) + "\n")
        self._orders.flush()
        return answer

    def do(self, **order: Any) -> Answer:
        """Give an order and wait for the answer."""
        return result(self.begin(**order))

    def close(self) -> None:
        self._orders.close()
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._output.close()

    def _read(self) -> None:
        for line in self._output:
            answer = Answer(**json.loads(line))
            self._answers[answer.name].set(answer)
        for pending in self._answers.values():
            if not pending.ready():
                pending.set_exception(EOFError(self.log))


def result(answer: AsyncResult[Answer]) -> Answer:
    """Wait for the answer to an order."""
    found = answer.get()
    assert found is not None
    return found


@contextmanager
def go_streams(version: str, address: Path, log: Path) -> Iterator[GoStreams]:
    """Run the program for the time of the block."""
    program = GoStreams(version, address, log)
    try:
        yield program
    finally:
        program.close()
