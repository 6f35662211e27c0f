"""What the tests with foreign hosts share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent, running_agent


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent of which no container may be left at the end."""
    with running_agent(tmp_path, "crun") as agent:
        yield agent
