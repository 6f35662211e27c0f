"""Both cores under arbitrary input, and the invariants that hold after every read."""

from __future__ import annotations

from kuasar_agent.ttrpc.client_core import ClientCore
from kuasar_agent.ttrpc.core import ConnectionCore, Event
from kuasar_agent.ttrpc.frames import HEADER_SIZE
from kuasar_agent.ttrpc.limits import Limits
from kuasar_agent.ttrpc.server_core import ServerCore
from kuasar_agent.ttrpc.service import methods_of
from kuasar_agent.ttrpc.status import ConnectionClosed, StatusError
from kuasar_agent.ttrpc.stream import ENDED, HALF_CLOSED, Stream
from tests.support.ttrpc.echo import NAME, SERVICE
from tests.support.ttrpc.wire import frame, split

METHODS = methods_of(SERVICE, None)
LIMITS = Limits(streams=8, stream_inbox=1 << 12, connection_inbox=1 << 14)
LONGEST_ANSWER = 1 << 10
"""Bytes of an answer to bad input, whose text quotes at most a name of the input."""


def frames_of(data: bytes) -> bytes:
    """Frames with headers made of the data, so that chance need not find a right length.

    A header is four bytes: id, type, flags and the payload's length, all small; the top bit of
    the id says that the length announced is a wrong one.
    """
    stream = bytearray()
    while len(data) >= 4:
        stream_id, kind, flags, length = data[:4]
        payload, data = data[4 : 4 + length], data[4 + length :]
        made = bytearray(frame(stream_id & 15, kind & 3 if kind < 250 else kind, flags, payload))
        if stream_id & 0x80:
            made[kind & 3] ^= flags
        stream += made
    return bytes(stream)


class ServerUnderFuzz:
    """A server core with handlers that end, echo or wait, depending on the kind of the method."""

    def __init__(self) -> None:
        self.core = ServerCore({NAME: METHODS}, limits=LIMITS)
        self.sent = bytearray()

    def receive(self, data: bytes) -> None:
        if self.core.congested:
            # A transport does not read on here. Twice, because the first call only sets the marks.
            for _event, stream in self.core.expire() + self.core.expire():
                self.core.done(stream)
            return
        for event, stream in self.core.receive_data(data):
            if event is Event.FAILED:
                self.core.done(stream)
            elif stream.state is not ENDED:
                self._step(stream)
        answers = self.core.outbox.take()
        split(answers)
        self.sent += answers
        check_bounds(self.core, len(data))

    def _step(self, stream: Stream) -> None:
        if stream.method.client_streaming and stream.id % 4 == 1:
            # A handler that takes no message.
            return
        while (message := self.core.take(stream)) is not None:
            if stream.method.server_streaming:
                self.core.send(stream, message)
        if stream.state is HALF_CLOSED:
            if stream.method.server_streaming:
                self.core.finish(stream)
            else:
                self.core.reply(stream, stream.payload)
            self.core.done(stream)


class ClientUnderFuzz:
    """A core with a call of each kind in progress."""

    def __init__(self) -> None:
        self.core = ClientCore(LIMITS)
        self.calls = [
            self.core.open(METHODS[name], METHODS[name].prefix)
            for name in ("Echo", "Count", "Sum", "Chat", "Echo", "Chat", "Chat")
        ]

    def receive(self, data: bytes) -> None:
        if self.core.congested:
            self.core.expire()
            self.core.expire()
            return
        self.core.receive_data(data)
        check_bounds(self.core, len(data))

    def use(self, choice: int) -> None:
        """Do one of the things that a caller does; only a status may be raised."""
        stream = self.calls[choice % len(self.calls)]
        try:
            match choice // len(self.calls) % 4:
                case 0:
                    self.core.send(stream, b"x")
                case 1:
                    self.core.close_send(stream)
                case 2:
                    self.core.take(stream)
                case 3:
                    self.core.abandon(stream, ConnectionClosed())
        except StatusError:
            return

    def close(self) -> None:
        self.core.closed()
        assert all(stream.state is ENDED for stream in self.calls)
        assert not self.core.streams


def check_bounds(core: ConnectionCore, received: int) -> None:
    """Check that the memory of a connection is bounded by its limits and by one read."""
    assert len(core.streams) <= LIMITS.streams
    # The most that is charged for bytes on the wire: an empty message has ten of them.
    assert core.inbox_size <= LIMITS.connection_inbox + received * 8
    assert core.partial_size <= HEADER_SIZE + (4 << 20)


def try_bytes(data: bytes) -> None:
    """Try one input at each core: raw and as frames, whole and in pieces."""
    for stream in (data, frames_of(data)):
        whole, pieces = ServerUnderFuzz(), ServerUnderFuzz()
        whole.receive(stream)
        half = len(stream) // 2
        pieces.receive(stream[:half])
        pieces.receive(stream[half:])
        answers = len(split(bytes(whole.sent))[0])
        assert len(whole.sent) <= answers * (HEADER_SIZE + LONGEST_ANSWER) + len(stream)
        client = ClientUnderFuzz()
        client.receive(stream[:half])
        for choice in data[:8]:
            client.use(choice)
        client.receive(stream[half:])
        client.close()
