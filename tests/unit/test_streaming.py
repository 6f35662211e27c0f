"""The Streaming service where two things happen in one round of the event loop.

A stream that does as told stands in for the connection: no kernel can be made to do them at once.
"""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api.transfer_pb2 import Data
from kuasar_agent.containerd import pack
from kuasar_agent.services.streaming import encode_data
from kuasar_agent.stdio.channels import OutputChannel, Preempted
from kuasar_agent.stdio.flow_control import MESSAGE, OutputFlow
from kuasar_agent.stdio.pacing import FREE_MESSAGES
from kuasar_agent.ttrpc import StreamClosed


class Crowded:
    """A stream whose connection has no room yet, and a host that grants once, if at all."""

    def __init__(self, grant: int | None = 1 << 20) -> None:
        self.room = Event()
        self.gone = Event()
        """The kernel takes what is queued, unless the connection is `lost`."""
        self.lost = False
        self.fails_after = -1
        """Messages after which the call is over."""
        self.queued: list[bytes] = []
        self.sent: list[bytes] = []
        self.ended = False
        self.incoming: Queue[int | None] = Queue()
        """Grants, and None for the half-close."""
        if grant is not None:
            self.incoming.put(grant)

    def receive_grant(self) -> int | None:
        return self.incoming.get()

    def end(self) -> None:
        self.ended = True

    def receive_data(self) -> bytes | None:
        raise NotImplementedError

    def send_grant(self, size: int) -> None:
        raise NotImplementedError

    def send_data(self, data: memoryview) -> None:
        self.room.wait()
        if len(self.queued) == self.fails_after:
            raise StreamClosed
        self.queued.append(bytes(data))

    def flush(self) -> bool:
        self.gone.wait()
        if self.lost:
            return False
        self.sent += self.queued
        self.queued.clear()
        return True

    def withdraw(self, count: int) -> int:
        kept = max(0, len(self.queued) - count)
        withdrawn = len(self.queued) - kept
        del self.queued[kept:]
        return withdrawn


def roomy(grant: int | None = 1 << 20) -> Crowded:
    """A stream that takes every message at once."""
    stream = Crowded(grant)
    stream.room.set()
    stream.gone.set()
    return stream


def reading(channel: OutputChannel, stream: Crowded) -> gevent.Greenlet[[], None]:
    """A reader that has come as far as it can."""

    def run() -> None:
        flow = OutputFlow(channel, stream)
        try:
            flow.run()
        finally:
            flow.leave()

    greenlet = gevent.spawn(run)
    gevent.idle()
    return greenlet


@pytest.mark.parametrize("size", [1, 127, 128, 16383, 16384, MESSAGE])
def test_data_is_encoded_as_protobuf_does(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    message = pack(Data(data=data[:size]))
    assert AnyMessage.FromString(encode_data(memoryview(data)[:size])) == message


@pytest.mark.parametrize("room_first", [True, False])
def test_a_message_that_waits_for_room_is_the_successors(room_first: bool) -> None:
    channel = OutputChannel()
    channel.put(b"hello")
    first, second = Crowded(), Crowded()
    old = reading(channel, first)
    if room_first:
        first.room.set()
    OutputFlow(channel, second)
    first.room.set()
    with pytest.raises(Preempted):
        old.get(timeout=10)
    assert (first.queued, first.sent) == ([], [])
    assert bytes(channel.peek(100)) == b"hello"


def test_a_queued_message_is_taken_back_for_the_successor() -> None:
    channel = OutputChannel()
    channel.put(b"hello")
    first, second = Crowded(), Crowded()
    first.room.set()
    old = reading(channel, first)
    assert first.queued == [b"hello"]
    OutputFlow(channel, second)
    with pytest.raises(Preempted):
        old.get(timeout=10)
    assert first.queued == []
    assert bytes(channel.peek(100)) == b"hello"


def test_a_message_that_has_left_is_not_sent_again() -> None:
    channel = OutputChannel()
    channel.put(b"hello")
    first, second = Crowded(), Crowded()
    first.room.set()
    old = reading(channel, first)
    # The kernel has it, but the reader has not been told.
    first.queued.clear()
    OutputFlow(channel, second)
    with pytest.raises(Preempted):
        old.get(timeout=10)
    assert channel.empty


@pytest.mark.parametrize("lost", [True, False])
def test_of_a_batch_the_successor_gets_what_has_not_left(lost: bool) -> None:
    parts = [bytes([value]) * MESSAGE for value in range(3)]
    channel = OutputChannel()
    channel.put(b"".join(parts))
    first, second = Crowded(), Crowded()
    first.room.set()
    old = reading(channel, first)
    assert first.queued == parts
    first.queued.pop(0)
    if lost:
        first.lost = True
        first.gone.set()
        with pytest.raises(ConnectionError):
            old.get(timeout=10)
    OutputFlow(channel, second)
    if not lost:
        with pytest.raises(Preempted):
            old.get(timeout=10)
    assert first.queued == []
    assert bytes(channel.peek(3 * MESSAGE)) == parts[1] + parts[2]


def test_a_batch_that_fails_in_the_middle_is_settled() -> None:
    channel = OutputChannel()
    channel.put(b"x" * 3 * MESSAGE)
    stream = Crowded()
    stream.room.set()
    stream.gone.set()
    stream.fails_after = 2
    with pytest.raises(StreamClosed):
        reading(channel, stream).get(timeout=10)
    assert stream.queued == []
    assert bytes(channel.peek(4 * MESSAGE)) == b"x" * 3 * MESSAGE


def test_a_batch_is_no_more_than_was_granted() -> None:
    channel = OutputChannel()
    channel.put(b"x" * 3 * MESSAGE)
    stream = Crowded(grant=MESSAGE + 1)
    stream.room.set()
    stream.gone.set()
    reader = reading(channel, stream)
    assert [len(message) for message in stream.sent] == [MESSAGE, 1]
    reader.kill()


def test_a_host_that_closes_its_side_after_a_grant_has_left() -> None:
    channel, first, second = OutputChannel(), roomy(grant=5), roomy()
    channel.put(b"hello world")
    flow = reading(channel, first)
    assert first.sent == [b"hello"]
    first.incoming.put(None)
    flow.get(timeout=10)
    assert (first.sent, first.ended, channel.has_reader) == ([b"hello"], False, False)
    other = reading(channel, second)
    assert second.sent == [b" world"]
    other.kill()


def test_a_host_that_leaves_while_messages_wait_for_room_takes_none_of_them() -> None:
    channel, stream = OutputChannel(), Crowded()
    channel.put(b"hello")
    flow = reading(channel, stream)
    stream.incoming.put(None)
    flow.get(timeout=10)
    assert (stream.queued, bytes(channel.peek(100))) == ([], b"hello")


def test_a_host_that_closes_its_side_without_a_grant_reads_on() -> None:
    channel, stream = OutputChannel(), roomy(grant=None)
    channel.put(b"hello")
    channel.end()
    flow = reading(channel, stream)
    assert stream.sent == []
    stream.incoming.put(None)
    flow.get(timeout=10)
    assert (stream.sent, stream.ended) == ([b"hello"], True)


def test_output_is_delivered_when_the_host_closes_its_side_after_the_end() -> None:
    channel, stream = OutputChannel(), roomy()
    channel.put(b"hello")
    channel.end()
    flow = reading(channel, stream)
    assert (stream.sent, stream.ended, channel.delivered) == ([b"hello"], True, False)
    stream.incoming.put(None)
    flow.get(timeout=10)
    assert channel.delivered


def test_a_silent_host_is_not_waited_for_once_the_task_is_deleted() -> None:
    channel, stream = OutputChannel(), roomy()
    channel.put(b"hello")
    channel.end()
    flow = reading(channel, stream)
    assert not flow.ready()
    channel.released = True
    channel.end()
    flow.get(timeout=10)


def test_small_messages_are_gathered_for_a_host_that_has_many_unread() -> None:
    channel, stream = OutputChannel(), roomy()
    flow = reading(channel, stream)
    for number in range(FREE_MESSAGES):
        channel.put(b"x")
        gevent.idle()
        assert len(stream.sent) == number + 1
    channel.put(b"y")
    gevent.idle()
    assert len(stream.sent) == FREE_MESSAGES
    channel.put(b"z" * MESSAGE)
    gevent.idle()
    # With a full message's bytes there is nothing to wait for.
    assert len(stream.sent) > FREE_MESSAGES
    channel.end()
    gevent.idle()
    assert b"".join(stream.sent) == b"x" * FREE_MESSAGES + b"y" + b"z" * MESSAGE
    flow.kill()
