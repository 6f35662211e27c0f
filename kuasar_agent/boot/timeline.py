"""When each part of start-up began and how long it took, on the kernel's clock."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kuasar_agent.log import get_logger

log = get_logger(__name__)


class Step(NamedTuple):
    """Milliseconds of CLOCK_MONOTONIC, which starts with the kernel."""

    name: str
    start_ms: float
    ms: float


class Timeline:
    """The steps so far, in the order in which they ended."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the body, also when it raises."""
        start = now_ms()
        try:
            yield
        finally:
            self._record(Step(name, start, now_ms() - start))

    def _record(self, step: Step) -> None:
        self.steps.append(step)
        start, length = f"{step.start_ms:.3f}", f"{step.ms:.3f}"
        log.info("boot step", step=step.name, start_ms=start, ms=length)


def now_ms() -> float:
    """Milliseconds since the kernel started."""
    return time.monotonic_ns() / 1e6
