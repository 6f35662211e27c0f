"""Spans of calls, their parts and the steps of start-up, by OpenTelemetry's SDK.

Needs the extra `kuasar-agent[tracing]`, and is imported when tracing is first turned on. A call's
span is a child of the span that the request's metadata names as `traceparent`, if any
(https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import Context as TraceContext
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kuasar_agent import __version__, spans
from kuasar_agent.boot.timeline import Step
from kuasar_agent.observe.calls import code_of
from kuasar_agent.observe.otlp import Exporter
from kuasar_agent.ttrpc.call import Proceed
from kuasar_agent.ttrpc.context import Context

_PARENT = ("traceparent", "tracestate")


class Tracing:
    """An interceptor that makes a span of each call; ended spans are sent even after `end`."""

    def __init__(self, endpoint: str, attributes: dict[str, str]) -> None:
        """Send spans to `endpoint`; `attributes` describe the resource that they come from."""
        self.exporter = Exporter(endpoint)
        resource = Resource(
            {"service.name": "kuasar-agent", "service.version": __version__, **attributes}
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(self.exporter)
        self._tracer = self._provider.get_tracer("kuasar_agent", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self) -> None:
        """Make spans of the marks in the agent's code (kuasar_agent.spans)."""
        spans.trace_with(self._part)

    def end(self) -> None:
        """Make no more spans of the marks."""
        spans.trace_with(None)

    def __call__(self, ctx: Context, request: Any, proceed: Proceed) -> Any:
        _, service, method = ctx.method.split("/")
        attributes = {"rpc.system": "ttrpc", "rpc.service": service, "rpc.method": method}
        for field, name in (("id", "container.id"), ("exec_id", "kuasar.exec.id")):
            if isinstance(value := getattr(request, field, None), str) and value:
                attributes[name] = value
        with (
            self._tracer.start_as_current_span(
                f"{service}/{method}",
                context=self._parent_of(ctx),
                kind=SpanKind.SERVER,
                attributes=attributes,
                record_exception=False,
                set_status_on_exception=False,
            ) as span,
            _noting_failure(span),
        ):
            return proceed(ctx, request)

    def boot(self, steps: Iterable[Step], serving_ms: float) -> None:
        """Make spans of start-up, which ended before tracing could begin."""
        # Offset from CLOCK_MONOTONIC to the wall clock, as it is now.
        zero = time.time_ns() - time.monotonic_ns()
        whole = self._tracer.start_span("boot", context=TraceContext(), start_time=zero)
        inside = set_span_in_context(whole, TraceContext())
        end = serving_ms
        for step in steps:
            end = max(end, step.start_ms + step.ms)
            begun = zero + int(step.start_ms * 1e6)
            part = self._tracer.start_span(f"boot {step.name}", inside, start_time=begun)
            part.end(begun + int(step.ms * 1e6))
        whole.end(zero + int(end * 1e6))

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        with (
            self._tracer.start_as_current_span(
                name, record_exception=False, set_status_on_exception=False
            ) as span,
            _noting_failure(span),
        ):
            yield

    def _parent_of(self, ctx: Context) -> TraceContext:
        carrier = {key: value for key in _PARENT if (value := ctx.metadata.get(key)) is not None}
        # Without an explicit context the span of this greenlet's previous call could be the parent.
        return self._propagator.extract(carrier, context=TraceContext())


@contextmanager
def _noting_failure(span: Span) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        span.set_attribute("rpc.status_code", code_of(error))
        span.set_status(Status(StatusCode.ERROR, str(error)))
        raise
