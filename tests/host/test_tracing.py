"""Spans on their way to a receiver, which takes OpenTelemetry."""

from __future__ import annotations

import pytest
from gevent.socket import socket

from kuasar_agent.observe.otlp import Exporter
from kuasar_agent.observe.tracing import Tracing
from kuasar_agent.spans import span
from kuasar_agent.ttrpc import Context, NotFound
from tests.support.otlp_receiver import Receiver, assert_nested
from tests.support.waiting import eventually


def test_spans_wait_for_a_receiver_that_comes_later() -> None:
    listener = socket()
    listener.bind(("127.0.0.1", 0))
    tracing = Tracing(f"http://127.0.0.1:{listener.getsockname()[1]}", {"host.name": "h"})
    context = Context("/s/M")

    def call(*_: object) -> None:
        with span("part"):
            raise NotFound("x")

    tracing.begin()
    try:
        with pytest.raises(NotFound):
            tracing(context, None, call)
    finally:
        tracing.end()
    assert eventually(lambda: tracing.exporter.failed, bool)
    listener.listen()
    with Receiver(listener).serving() as receiver:
        assert eventually(lambda: len(receiver.spans), lambda count: count == 2) == 2
    (whole,), (part,) = receiver.named("s/M"), receiver.named("part")
    assert whole.failed
    assert part.failed
    assert_nested(receiver, whole)
    assert receiver.children(whole) == [part]
    assert (tracing.exporter.sent, tracing.exporter.dropped) == (2, 0)


@pytest.mark.parametrize("endpoint", ["", "http://h", "https://h:1", "vsock://2"])
def test_an_endpoint_that_makes_no_sense_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="no endpoint"):
        Exporter(endpoint)
