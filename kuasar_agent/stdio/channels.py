"""Channels of the Streaming service: bytes between a process and a host that may come and go.

A channel has an id, and is made by the side that asks for it first: the process's stdio or the
host's stream. Each side may leave and come back; bytes stay until they are taken. The bytes that an
output channel holds when its task is deleted are kept for `KEEP` seconds more.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import gevent
from gevent.event import Event

from kuasar_agent.errors import ResourceExhausted, Unknown
from kuasar_agent.log import get_logger
from kuasar_agent.stdio.sink import Sink

log = get_logger(__name__)

CAPACITY = 256 * 1024
"""Bytes of output that a channel holds before the process has to wait."""

WINDOW = 32 * 1024
"""Bytes of input that a host may have on the way and in the channel together."""

KEEP = 30.0
"""Seconds for which the output of a deleted task is kept."""

MOST_CHANNELS = 4096


class Preempted(Exception):
    """Another reader has taken the place of this one."""


class Reader(Protocol):
    """A host's stream that takes bytes out of an output channel."""

    @property
    def grants(self) -> bool:
        """Whether the reader tells how far it is."""

    def preempt(self) -> None:
        """Settle, without waiting, the bytes that were peeked at: another reader takes over."""


class OutputChannel:
    """Output from a process to at most one reader at a time."""

    def __init__(self) -> None:
        self.produced = False
        """Whether a process writes, or wrote, to it."""
        self.prompt = False
        """Whether that process has an input, so that its output may be awaited."""
        self.ended = False
        self.released = False
        """The task is deleted: nothing more comes, and no call waits for the delivery."""
        self.progress = 0
        """Grows with each sign that a reader takes bytes."""
        self._chunks: deque[bytes] = deque()
        self._offset = 0
        """Bytes of the first chunk that were consumed."""
        self._size = 0
        self._reader: Reader | None = None
        self._changed = Event()
        self._taken = Event()

    @property
    def empty(self) -> bool:
        return not self._chunks

    @property
    def size(self) -> int:
        """Bytes that wait for a reader."""
        return self._size

    @property
    def has_reader(self) -> bool:
        return self._reader is not None

    def put(self, data: bytes) -> None:
        """Add bytes; to be followed by `wait_for_room`."""
        self._chunks.append(data)
        self._size += len(data)
        self._changed.set()

    def wait_for_room(self) -> None:
        """Wait until the channel has room for more bytes. Blocks: the greenlet."""
        while self._size >= CAPACITY:
            self._wait_until_taken()

    def end(self) -> None:
        """Declare that no more bytes will be put."""
        self.ended = True
        self._changed.set()

    @property
    def delivered(self) -> bool:
        """Whether a reader has had every byte put so far, and the end if there is one."""
        return not self._chunks and not (self.ended and self.has_reader)

    @property
    def reader_grants(self) -> bool:
        """Whether there is a reader that tells how far it is."""
        return self._reader is not None and self._reader.grants

    def wait_until_delivered(self) -> None:
        """Wait until a reader has had everything, the end included. Blocks: the greenlet."""
        while self._chunks or self.has_reader:
            self._wait_until_taken()

    def attach(self, reader: Reader) -> None:
        """Make `reader` the channel's reader, in place of another one."""
        if self._reader is not None:
            self._reader.preempt()
        self._reader = reader
        self.wake()
        self._taken.set()

    def detach(self, reader: Reader) -> None:
        """Let a reader go, unless another one has taken over."""
        if self._reader is reader:
            self._reader = None
            self._taken.set()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until bytes, the end or the reader have changed. Blocks: the greenlet."""
        self._changed.clear()
        self._changed.wait(seconds)

    def wake(self) -> None:
        """Make `wait` return."""
        self._changed.set()

    def peek(self, limit: int) -> memoryview:
        """Return the next bytes, at most `limit`; they stay until `consume`."""
        if not self._chunks:
            return memoryview(b"")
        if not self._offset and len(self._chunks[0]) < limit and len(self._chunks) > 1:
            # Many small writes make one message.
            gathered, size = [], 0
            while self._chunks and size + len(self._chunks[0]) <= limit:
                gathered.append(self._chunks.popleft())
                size += len(gathered[-1])
            self._chunks.appendleft(b"".join(gathered))
        return memoryview(self._chunks[0])[self._offset : self._offset + limit]

    def consume(self, size: int) -> None:
        """Forget the first `size` bytes, which `peek` returned."""
        self._offset += size
        if self._offset == len(self._chunks[0]):
            self._chunks.popleft()
            self._offset = 0
        self._size -= size
        self.progress += 1
        self._taken.set()

    def _wait_until_taken(self) -> None:
        self._taken.clear()
        self._taken.wait()


class InputChannel:
    """Input from at most one writer at a time to a process."""

    def __init__(self) -> None:
        self.ended = False
        self.used = False
        """Whether a process reads, or read, from it."""
        self.released = False
        """The process reads no more."""
        self._chunks: deque[bytes] = deque()
        self.pending = 0
        """Bytes that wait for the process."""
        self._writer: object | None = None
        self._available = Event()
        self._on_taken: Event | None = None

    @property
    def has_writer(self) -> bool:
        return self._writer is not None

    def attach(self, on_taken: Event) -> object:
        """Become the writer and return a token for `detach`.

        `on_taken` is set when the process has taken bytes.

        Raises: Unknown when the channel has a writer.
        """
        if self._writer is not None:
            # contract: vmm-task
            raise Unknown("someone is taking the channel sender")
        self._writer = token = object()
        self._on_taken = on_taken
        return token

    def detach(self, token: object) -> None:
        """Make room for the next writer."""
        if self._writer is token:
            self._writer = None
            self._on_taken = None

    def put(self, data: bytes) -> None:
        self._chunks.append(data)
        self.pending += len(data)
        self._available.set()

    def end(self) -> None:
        self.ended = True
        self._available.set()

    def take(self) -> bytes:
        """Return the next bytes; none at the end. Blocks: the greenlet."""
        while not self._chunks and not self.ended:
            self._available.clear()
            self._available.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self.pending = 0
        self._tell_writer()
        return data

    def release(self) -> None:
        """Drop the bytes that are here and those to come: the process reads no more."""
        self.released = True
        self._chunks.clear()
        self.pending = 0
        self._tell_writer()

    def _tell_writer(self) -> None:
        if self._on_taken is not None:
            self._on_taken.set()


class Channels:
    """The tables of channels by their ids, one for each direction."""

    def __init__(self, keep: float = KEEP) -> None:
        self.outputs: dict[str, OutputChannel] = {}
        self.inputs: dict[str, InputChannel] = {}
        self._keep = keep

    def output(self, id: str) -> OutputChannel:
        """Return the output channel of that id, a new one if need be.

        Raises: ResourceExhausted when there are too many.
        """
        channel = self.outputs.get(id)
        if channel is None:
            self._check_room(id)
            channel = self.outputs[id] = OutputChannel()
        return channel

    def input(self, id: str) -> InputChannel:
        """Return the input channel of that id, a new one if need be.

        Raises: ResourceExhausted when there are too many.
        """
        channel = self.inputs.get(id)
        if channel is None:
            self._check_room(id)
            channel = self.inputs[id] = InputChannel()
        return channel

    def produce(self, id: str, *, prompt: bool = False) -> OutputChannel:
        """Return the output channel for a new process; the rest of a deleted task's is dropped.

        `prompt`: the process has an input, so its output may be awaited.

        Raises: Unknown when another process writes to it, ResourceExhausted.
        """
        old = self.outputs.get(id)
        if old is not None and old.released:
            self._remove_output(id, old)
        channel = self.output(id)
        if channel.produced:
            raise Unknown(f"another process writes to stream {id}")
        channel.produced = True
        channel.prompt = prompt
        return channel

    def reader_left(self, id: str, channel: OutputChannel) -> None:
        """Forget a channel that has neither a process nor a reader."""
        abandoned = not channel.produced or (channel.released and channel.empty)
        if abandoned and not channel.has_reader:
            self._remove_output(id, channel)

    def writer_left(self, id: str, channel: InputChannel) -> None:
        """Forget, at once or after a while, an input channel that no process has."""
        if channel.pending or channel.ended:
            gevent.spawn_later(self._keep, self._forget_unused, id, channel)
        else:
            self._forget_unused(id, channel)

    def _forget_unused(self, id: str, channel: InputChannel) -> None:
        if not channel.used and not channel.has_writer:
            self._remove_input(id, channel)

    def release_output(self, id: str, channel: OutputChannel) -> None:
        """Keep the undelivered output of a deleted task for a while, then drop it."""
        if channel.released:
            return
        channel.released = True
        channel.end()
        if channel.empty and not channel.has_reader:
            self._remove_output(id, channel)
        else:
            gevent.spawn_later(self._keep, self._expire, id, channel)

    def release_input(self, id: str, channel: InputChannel) -> None:
        """Forget the input channel of a deleted task."""
        channel.release()
        self._remove_input(id, channel)

    def _expire(self, id: str, channel: OutputChannel) -> None:
        if channel.has_reader:
            # A slow reader, which may come back for the rest.
            gevent.spawn_later(self._keep, self._expire, id, channel)
            return
        if not channel.empty:
            log.warning("output dropped: no reader took it in time", stream=id)
        self._remove_output(id, channel)

    def _remove_output(self, id: str, channel: OutputChannel) -> None:
        if self.outputs.get(id) is channel:
            del self.outputs[id]

    def _remove_input(self, id: str, channel: InputChannel) -> None:
        if self.inputs.get(id) is channel:
            del self.inputs[id]

    def _check_room(self, id: str) -> None:
        if len(self.outputs) + len(self.inputs) >= MOST_CHANNELS:
            raise ResourceExhausted(f"too many streams: no room for {id}")


class ChannelSink(Sink):
    """An output channel, which outlives its process."""

    def __init__(self, channels: Channels, id: str, *, prompt: bool = False) -> None:
        self._channels = channels
        self._id = id
        self._channel = channels.produce(id, prompt=prompt)

    @property
    def taken(self) -> bool:
        return self._channel.delivered

    @property
    def progress(self) -> int:
        return self._channel.progress

    @property
    def slow_to_tell(self) -> bool:
        return self._channel.reader_grants

    def write(self, data: bytes) -> None:
        self._channel.put(data)
        self._channel.wait_for_room()

    def finish(self) -> None:
        self._channel.end()
        self._channel.wait_until_delivered()

    def keep(self, data: bytes) -> bool:
        self._channel.put(data)
        return True

    def close(self) -> None:
        self._channels.release_output(self._id, self._channel)


class ChannelSource:
    """An input channel."""

    def __init__(self, channels: Channels, id: str) -> None:
        self._channels = channels
        self._id = id
        self._channel = channels.input(id)
        self._channel.used = True

    def read(self) -> bytes:
        return self._channel.take()

    def finish(self) -> None:
        # The channel stays, so that a writer that comes late learns that the process reads no more.
        self._channel.release()

    def close(self) -> None:
        self._channels.release_input(self._id, self._channel)
