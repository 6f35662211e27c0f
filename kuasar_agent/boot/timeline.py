"""The beginning and the duration of each step of start-up, on the kernel's clock."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kuasar_agent.log import get_logger

log = get_logger(__name__)


class Step(NamedTuple):
    """A step; times are milliseconds of CLOCK_MONOTONIC, which starts with the kernel."""

    name: str
    start_ms: float
    ms: float


class Timeline:
    """The finished steps, in the order in which they ended."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Record the time of the block, also when it raises."""
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
    """Return the milliseconds since the kernel started."""
    return time.monotonic_ns() / 1e6
