"""A receiver of traces: OTLP over HTTP, read with OpenTelemetry's own messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import gevent
from gevent.socket import socket
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span(NamedTuple):
    """A span, its ids in hexadecimal."""

    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    failed: bool
    attributes: dict[str, str]


class Receiver:
    """Answers every request with 200 and keeps the spans."""

    def __init__(self, listener: socket) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.requests: list[bytes] = []
        """The first line of each."""
        self.listener = listener

    @contextmanager
    def serving(self) -> Iterator[Receiver]:
        accepting = gevent.spawn(self._accept)
        try:
            yield self
        finally:
            accepting.kill()
            self.listener.close()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def children(self, parent: Span) -> list[Span]:
        return [span for span in self.spans if span.parent == parent.id]

    def _accept(self) -> None:
        while True:
            peer, _ = self.listener.accept()
            gevent.spawn(self._serve, peer)

    def _serve(self, peer: socket) -> None:
        with peer, peer.makefile("rb") as file:
            first = file.readline()
            headers = {}
            while line := file.readline().strip():
                name, _, value = line.partition(b":")
                headers[name.lower()] = value.strip()
            assert headers[b"content-type"] == b"application/x-protobuf"
            body = file.read(int(headers[b"content-length"]))
            self._keep(ExportTraceServiceRequest.FromString(body))
            self.requests.append(first)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def _keep(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            attributes = {each.key: each.value for each in resource.resource.attributes}
            self.services.add(attributes["service.name"].string_value)
            for scope in resource.scope_spans:
                self.spans += [
                    Span(
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        span.status.code == span.status.STATUS_CODE_ERROR,
                        {each.key: each.value.string_value for each in span.attributes},
                    )
                    for span in scope.spans
                ]


def assert_nested(receiver: Receiver, parent: Span) -> None:
    """Everything below `parent` lies within it, in time and in the same trace."""
    for child in receiver.children(parent):
        assert child.trace == parent.trace
        assert parent.start <= child.start <= child.end <= parent.end, (parent, child)
        assert_nested(receiver, child)
