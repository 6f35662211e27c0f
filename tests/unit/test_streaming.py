"""The Streaming service where two things happen in one round of the event loop.

A stream that does as told stands in for the connection: no kernel can be made to do them at once.
"""

from __future__ import annotations

from typing import cast

import gevent
import pytest
from gevent.event import Event
from google.protobuf.any_pb2 import Any as AnyMessage

from kuasar_agent.api.transfer_pb2 import Data, WindowUpdate
from kuasar_agent.containers.channels import OutputChannel, Preempted
from kuasar_agent.services.streaming import _pack, _Reader
from kuasar_agent.ttrpc import ServerStream


class Crowded:
    """A stream whose connection has no room yet, and a peer that grants a kilobyte."""

    def __init__(self) -> None:
        self.room = Event()
        self.gone = Event()
        """The kernel takes what is queued."""
        self.queued: list[bytes] = []
        self.sent: list[bytes] = []
        self._grants = [WindowUpdate(update=1024)]

    def recv(self) -> AnyMessage:
        if not self._grants:
            Event().wait()
        return _pack(self._grants.pop())

    def send(self, message: AnyMessage) -> None:
        self.room.wait()
        self.queued.append(Data.FromString(message.value).data)

    def flush(self) -> bool:
        self.gone.wait()
        self.sent += self.queued
        self.queued.clear()
        return True

    def withdraw(self) -> bool:
        return bool(self.queued and self.queued.pop())


def reading(channel: OutputChannel, stream: Crowded) -> gevent.Greenlet[[], None]:
    """A reader that has come as far as it can."""

    def run() -> None:
        reader = _Reader(channel, cast(ServerStream, stream))
        try:
            reader.run()
        finally:
            reader.leave()

    greenlet = gevent.spawn(run)
    gevent.idle()
    return greenlet


@pytest.mark.parametrize("room_first", [True, False])
def test_a_message_that_waits_for_room_is_the_successors(room_first: bool) -> None:
    channel = OutputChannel()
    channel.put(b"hello")
    first, second = Crowded(), Crowded()
    old = reading(channel, first)
    if room_first:
        first.room.set()
    _Reader(channel, cast(ServerStream, second))
    first.room.set()
    with pytest.raises(Preempted):
        old.get(timeout=10)
    assert (first.queued, first.sent) == ([], [])
    assert channel.peek(100) == b"hello"


def test_a_queued_message_is_taken_back_for_the_successor() -> None:
    channel = OutputChannel()
    channel.put(b"hello")
    first, second = Crowded(), Crowded()
    first.room.set()
    old = reading(channel, first)
    assert first.queued == [b"hello"]
    _Reader(channel, cast(ServerStream, second))
    with pytest.raises(Preempted):
        old.get(timeout=10)
    assert first.queued == []
    assert channel.peek(100) == b"hello"


def test_a_message_that_has_left_is_not_sent_again() -> None:
    channel = OutputChannel()
    channel.put(b"hello")
    first, second = Crowded(), Crowded()
    first.room.set()
    old = reading(channel, first)
    # The kernel has it, but the reader has not been told.
    first.queued.clear()
    _Reader(channel, cast(ServerStream, second))
    with pytest.raises(Preempted):
        old.get(timeout=10)
    assert channel.empty
