from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.vsock.backend import Backend
from tests.support.vsock.driver import Driver


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    process = Backend(tmp_path)
    try:
        yield process
        process.stop()
    finally:
        process.process.kill()
        process.process.wait()


@pytest.fixture
def driver(backend: Backend) -> Iterator[Driver]:
    guest = Driver(backend.vhost)
    yield guest
    guest.close()
