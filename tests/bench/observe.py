"""What watching costs: a call's latency with metrics, with tracing, and with neither."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gevent
from gevent import socket

from kuasar_agent.api import sandbox_pb2
from kuasar_agent.observe.calls import Calls
from kuasar_agent.observe.tracing import Tracing
from kuasar_agent.services.sandbox import SERVICE
from kuasar_agent.ttrpc import Server, Stub, connect, listen
from kuasar_agent.ttrpc.call import Interceptor
from tests.bench.start import percentile
from tests.bench.table import show
from tests.support.otlp_receiver import Receiver

CALLS = 4000
ROUNDS = 5


class Handler:
    """Does what the agent's does: nothing."""

    def check(self, ctx: object, request: sandbox_pb2.CheckRequest) -> None:
        return None


def main() -> None:
    load = os.getloadavg()[0]
    with _receiver() as endpoint:
        tracing = Tracing(endpoint, {})
        ways: dict[str, Sequence[Interceptor]] = {
            "neither": [],
            "metrics": [Calls()],
            "metrics and tracing": [tracing, Calls()],
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        # In turn, so that the machine's other work falls on all of them.
        for _ in range(ROUNDS):
            for name, interceptors in ways.items():
                found[name] += _measure(interceptors)
    rows: list[list[str | float]] = [
        [name, *(percentile(taken, share) for share in (0.1, 0.5, 0.99))]
        for name, taken in found.items()
    ]
    title = f"Check over a unix socket, client and server in one process, {ROUNDS * CALLS} calls"
    show(
        f"{title} ({os.cpu_count()} CPUs, load {load:.1f}), us",
        ["observed by", "p10", "p50", "p99"],
        rows,
    )


def _measure(interceptors: Sequence[Interceptor]) -> list[float]:
    with _served(interceptors) as stub:
        request = sandbox_pb2.CheckRequest()
        return [_timed(lambda: stub.check(request)) for _ in range(CALLS)]


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e6


@contextmanager
def _served(interceptors: Sequence[Interceptor]) -> Iterator[Stub]:
    with tempfile.TemporaryDirectory(prefix="kuasar-") as scratch:
        address = f"unix://{Path(scratch) / '1024'}"
        server = Server(interceptors)
        server.register(SERVICE, Handler(), partial=True)
        server.start(listen(address))
        with connect(address, 10) as client:
            yield client.stub(SERVICE)
        server.close()
        gevent.sleep(0)


@contextmanager
def _receiver() -> Iterator[str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    with Receiver(listener).serving():
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
