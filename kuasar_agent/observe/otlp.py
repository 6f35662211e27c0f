"""An exporter of spans: OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

OpenTelemetry's own exporter brings an HTTP library that needs TLS and cannot use vsock. This one
sends from a greenlet; while the receiver is away at most `MOST_WAITING` spans are kept, and the
oldest are dropped first.
"""

from __future__ import annotations

from collections import deque
from socket import AF_VSOCK
from urllib.parse import urlsplit

import gevent
from gevent import socket
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from kuasar_agent.log import get_logger

log = get_logger(__name__)

MOST_WAITING = 2048
MOST_AT_ONCE = 128

GATHER = 0.2
"""Seconds from the first span of a batch to its sending."""

_WITHIN = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_PATH = "/v1/traces"


class Exporter(SpanProcessor):
    """Sender of ended spans to `http://HOST:PORT[/PATH]` or `vsock://CID:PORT[/PATH]`."""

    def __init__(self, endpoint: str) -> None:
        """
        Raises:
            ValueError: `endpoint` has neither form.
        """
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "vsock") or parts.hostname is None or parts.port is None:
            raise ValueError(f"no endpoint for traces: {endpoint!r}")
        self.sent = self.failed = self.dropped = 0
        """Spans that the receiver took, attempts that failed, spans dropped."""
        self._endpoint = endpoint
        self._vsock = parts.scheme == "vsock"
        self._place = parts.hostname, parts.port
        self._path = parts.path if parts.path.strip("/") else _PATH
        self._waiting: deque[ReadableSpan] = deque()
        self._sender: gevent.Greenlet[[], None] | None = None

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span. Blocks: never."""
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(span)
        if self._sender is None or self._sender.dead:
            self._sender = gevent.spawn_later(GATHER, self._send_all)

    def _send_all(self) -> None:
        pause = _FIRST_PAUSE
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(MOST_AT_ONCE, len(self._waiting)))]
            try:
                self._post(encode_spans(batch).SerializeToString())
            except (OSError, gevent.Timeout) as error:
                self.failed += 1
                log.warning(
                    "traces not sent, trying again", to=self._endpoint, error=error, s=pause
                )
                self._put_back(batch)
                gevent.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except Exception:
                log.exception("traces dropped")
                self.dropped += len(batch)
            else:
                pause = _FIRST_PAUSE
                self.sent += len(batch)

    def _put_back(self, batch: list[ReadableSpan]) -> None:
        excess = max(0, len(batch) + len(self._waiting) - MOST_WAITING)
        self.dropped += excess
        self._waiting.extendleft(reversed(batch[excess:]))

    def _post(self, body: bytes) -> None:
        """Send one request.

        Raises:
            OSError: the receiver cannot be reached, or answers with an error.
            gevent.Timeout: no answer within `_WITHIN` seconds.
        """
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: {self._place[0]}:{self._place[1]}\r\n"
            f"Content-Type: application/x-protobuf\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        with gevent.Timeout(_WITHIN), self._connect() as peer:
            peer.sendall(head.encode() + body)
            status = peer.makefile("rb").readline().split()
        if len(status) < 2 or not status[1].startswith(b"2"):
            raise OSError(f"the receiver answers {b' '.join(status).decode(errors='replace')!r}")

    def _connect(self) -> socket.socket:
        host, port = self._place
        if not self._vsock:
            return socket.create_connection((host, port))
        peer = socket.socket(AF_VSOCK, socket.SOCK_STREAM)
        try:
            peer.connect((int(host), port))
        except BaseException:
            peer.close()
            raise
        return peer
