from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from tests.unit.ttrpc.peers import PATIENCE


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    with gevent.Timeout(3 * PATIENCE):
        yield
