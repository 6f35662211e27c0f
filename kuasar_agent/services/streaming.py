"""`containerd.services.streaming.v1.Streaming`: standard streams over ttrpc calls.

A call names its stream in a first message, StreamInit, which is acknowledged with Empty. From then
on one side sends Data and the other WindowUpdates, which are credit: bytes that may be sent.

https://github.com/containerd/containerd/blob/main/core/transfer/streaming/stream.go
"""

from __future__ import annotations

from typing import TypeVar

import gevent
from gevent.event import Event
from gevent.hub import get_hub
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from kuasar_agent.api import streaming_pb2, transfer_pb2
from kuasar_agent.stdio.channels import (
    WINDOW,
    Channels,
    InputChannel,
    OutputChannel,
    Preempted,
)
from kuasar_agent.ttrpc import (
    ConnectionClosed,
    Context,
    InvalidArgument,
    ResourceExhausted,
    ServerStream,
    StatusError,
    Unknown,
)
from kuasar_agent.ttrpc.envelope import varint

M = TypeVar("M", bound=Message)

SERVICE = streaming_pb2.DESCRIPTOR.services_by_name["Streaming"]

MESSAGE = 32 * 1024
"""Bytes of output in one Data message, at most. containerd's reader counts what it copies to a
buffer of this size and forgets the rest, so after a longer message it would grant too little, and
in the end nothing."""

BATCH = 4 * MESSAGE
"""Bytes of output that are handed to the kernel at once."""

MOST_UNGRANTED = 1 << 20
"""Bytes of input from a peer that ignores its window before its call fails."""

LONGEST_ID = 1024

SILENT = 2.0
"""Seconds after which a reader that has granted nothing is taken for one that never does."""


class StreamingService:
    """Handlers of the Streaming service."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    def stream(self, ctx: Context, stream: ServerStream) -> None:
        """One stream until its end, the peer's or a successor's arrival."""
        first = stream.recv()
        if first is None:
            raise Unknown("can not receive streamInit")
        id = _parse(streaming_pb2.StreamInit, first).id
        if not 0 < len(id) <= LONGEST_ID:
            raise InvalidArgument(f"stream id of {len(id)} characters")
        stream.send(_pack(Empty()))
        if id.endswith("stdin"):
            self._receive(id, stream)
        elif id.endswith(("stdout", "stderr")):
            self._send(id, stream)

    def _receive(self, id: str, stream: ServerStream) -> None:
        channel = self._channels.input(id)
        writer = _Writer(channel, stream)
        try:
            writer.run()
        finally:
            writer.leave()
            self._channels.writer_left(id, channel)

    def _send(self, id: str, stream: ServerStream) -> None:
        channel = self._channels.output(id)
        reader = _Reader(channel, stream)
        try:
            reader.run()
        except Preempted:
            raise Unknown("channel is preempted") from None
        finally:
            reader.leave()
            self._channels.reader_left(id, channel)


class _Released(Exception):
    """The process does not read any more."""


class _Interruptible:
    """Lets a greenlet be woken from one particular wait."""

    def __init__(self) -> None:
        self._greenlet = gevent.getcurrent()
        self._waits = False

    def __enter__(self) -> None:
        self._waits = True

    def __exit__(self, *_: object) -> None:
        self._waits = False

    def interrupt(self, error: type[Exception]) -> None:
        """Raise `error` in the greenlet if it is still in the block when the hub runs."""
        get_hub().loop.run_callback(self._throw, error)

    def _throw(self, error: type[Exception]) -> None:
        if self._waits:
            self._greenlet.throw(error)


class _Writer:
    """The peer writes a process's input. What it has been granted and what waits for the process
    never exceed the window together."""

    def __init__(self, channel: InputChannel, stream: ServerStream) -> None:
        self._channel = channel
        self._stream = stream
        self._granted = 0
        self._taken = Event()
        self._waiting = _Interruptible()
        self._token = channel.attach(self._taken)
        self._granter = gevent.spawn(self._grant)

    def run(self) -> None:
        """Raises the stream's error when the peer is gone; another may go on then."""
        channel = self._channel
        while not (channel.ended or channel.released):
            try:
                with self._waiting:
                    message = self._stream.recv()
            except _Released:
                return
            if message is None:
                channel.end()
                return
            data = _parse(transfer_pb2.Data, message).data
            self._granted = max(0, self._granted - len(data))
            if data:
                channel.put(data)
                # What came in ahead of the end of the process is granted anew for nobody.
                self._taken.set()
            if channel.pending > MOST_UNGRANTED:
                raise ResourceExhausted("the sender ignores its window")

    def leave(self) -> None:
        self._granter.kill()
        self._channel.detach(self._token)

    def _grant(self) -> None:
        """Grant what the process has taken, half a window at a time unless it has taken all."""
        channel = self._channel
        while not channel.ended:
            if channel.released:
                self._waiting.interrupt(_Released)
                return
            room = WINDOW - self._granted - channel.pending
            if room >= WINDOW // 2 or (room > 0 and not channel.pending):
                try:
                    self._stream.send(_pack(transfer_pb2.WindowUpdate(update=room)))
                except StatusError:
                    return
                self._granted += room
            self._taken.clear()
            self._taken.wait()


class _Reader:
    """The peer reads a process's output, as much as it has granted.

    Bytes leave the channel when the kernel has taken the whole message for the peer's connection.
    The protocol has no acknowledgement by which a later loss could be told from a delivery. A
    grant is none: containerd grants 64 KiB whenever it has less than that left, so its grants
    trail what it has read by up to 128 KiB, and to send those again would double lines. A peer
    that vanishes therefore takes at most what it had granted with it; one that grants only what
    it is going to read loses nothing.
    """

    def __init__(self, channel: OutputChannel, stream: ServerStream) -> None:
        self._channel = channel
        self._stream = stream
        self._credit = 0
        self._limited = True
        self._heard = False
        self._in_flight: list[int] = []
        """The sizes of what was peeked at and queued."""
        self._preempted = False
        self._error: StatusError | None = None
        self._sending = _Interruptible()
        channel.attach(self)
        self._listener = gevent.spawn(self._listen)
        self._silence = gevent.spawn_later(SILENT, self._stop_waiting)

    def preempt(self) -> None:
        self._preempted = True
        self._settle()
        self._sending.interrupt(Preempted)

    def run(self) -> None:
        """Raises Preempted, and the stream's error when the peer is gone."""
        channel = self._channel
        while True:
            if self._preempted:
                raise Preempted
            if self._error is not None:
                raise self._error
            if channel.empty and channel.ended:
                return
            limit = min(self._credit, BATCH) if self._limited else BATCH
            if channel.empty or limit <= 0:
                channel.wait()
            else:
                self._deliver(channel.peek(limit))

    def leave(self) -> None:
        for helper in (self._listener, self._silence):
            helper.kill()
        self._channel.detach(self)

    def _deliver(self, data: memoryview) -> None:
        with self._sending:
            try:
                self._queue(data)
                sent = self._stream.flush()
            finally:
                self._settle()
        if not (sent or self._preempted):
            raise ConnectionClosed

    def _queue(self, data: memoryview) -> None:
        for start in range(0, len(data), MESSAGE):
            message = data[start : start + MESSAGE]
            self._stream.send_encoded(encode_data(message))
            if self._preempted:
                # While it waited for room: the message is the successor's.
                self._stream.withdraw(1)
                raise Preempted
            self._in_flight.append(len(message))
            self._credit -= len(message)

    def _settle(self) -> None:
        """Take out of the channel what the peer has, or will have; leave the rest to the next."""
        sizes, self._in_flight = self._in_flight, []
        if sizes:
            withdrawn = self._stream.withdraw(len(sizes))
            self._channel.consume(sum(sizes[: len(sizes) - withdrawn]))

    def _listen(self) -> None:
        try:
            while (message := self._stream.recv()) is not None:
                update = _parse(transfer_pb2.WindowUpdate, message).update
                self._grant(max(0, update))
            # It reads on, but cannot grant any more.
            self._stop_waiting()
        except StatusError as error:
            self._error = error
            self._channel.wake()

    def _grant(self, update: int) -> None:
        if not self._heard:
            # What went out before this is not part of its account.
            self._heard = self._limited = True
            self._credit = 0
            self._silence.kill()
        self._credit += update
        self._channel.wake()

    def _stop_waiting(self) -> None:
        self._limited = False
        self._channel.wake()


_DATA_URL = AnyMessage(type_url=transfer_pb2.Data.DESCRIPTOR.full_name).SerializeToString()
# Tags: field number << 3 | 2, which is a length and as many bytes.
_ANY_VALUE = b"\x12"
_DATA_DATA = b"\x0a"


def encode_data(data: bytes | memoryview) -> bytes:
    """A Data in an Any, on the wire: one copy of the bytes, where protobuf's way takes five."""
    field = _DATA_DATA + varint(len(data))
    length = varint(len(field) + len(data))
    return b"".join((_DATA_URL, _ANY_VALUE, length, field, data))


def _pack(message: Message) -> AnyMessage:
    """Bare names: that is what containerd registers its types by."""
    return AnyMessage(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())


def _parse(kind: type[M], message: AnyMessage) -> M:
    try:
        return kind.FromString(message.value)
    except DecodeError as error:
        raise InvalidArgument(f"{kind.__name__}: {error}") from None
