"""Flow control of the Streaming service: which bytes may travel between a channel and a host.

One side of a stream sends data, the other one grants how many bytes it may send. A `Stream`
carries both; its wire format is the service's.

https://github.com/containerd/containerd/blob/main/core/transfer/streaming/stream.go
"""

from __future__ import annotations

import time
from typing import Protocol

import gevent
from gevent.event import Event
from gevent.hub import get_hub

from kuasar_agent.errors import ResourceExhausted
from kuasar_agent.stdio.channels import WINDOW, InputChannel, OutputChannel, Preempted
from kuasar_agent.stdio.pacing import MessagePause

MESSAGE = 32 * 1024
"""Bytes of output in one message, at most. containerd's reader counts the bytes that it copies to
a buffer of this size and forgets the rest, so after a longer message it would grant too little,
and in the end nothing."""

BATCH = 4 * MESSAGE
"""Bytes of output that are handed to the kernel at once."""

MOST_UNGRANTED = 1 << 20
"""Bytes of input from a host that ignores its window before its call fails."""

SILENT = 2.0
"""Seconds after which a reader that has granted nothing is taken for one that never does."""


ACKNOWLEDGED = 10.0
"""Seconds for a host to half-close after the end of a stream."""


class Stream(Protocol):
    """A host's stream. Each call raises the transport's error once the host is gone."""

    def receive_grant(self) -> int | None:
        """Return the bytes that the host grants next; None after its half-close.

        Raises: InvalidArgument for a message that does not parse.
        Blocks: the greenlet.
        """

    def receive_data(self) -> bytes | None:
        """Return the host's next bytes; None after its half-close. Raises, blocks: likewise."""

    def send_grant(self, size: int) -> None:
        """Grant the host bytes. Blocks: the greenlet, while too much is unsent."""

    def send_data(self, data: memoryview) -> None:
        """Queue a message of output. Blocks: the greenlet, while too much is unsent."""

    def flush(self) -> bool:
        """Wait until the kernel has every message; False when the connection went first."""

    def end(self) -> None:
        """Tell the host that no output follows; it may still grant, and half-close."""

    def withdraw(self, count: int) -> int:
        """Take back those of the last `count` messages that the host will not get, and count them.

        Blocks: never.
        """


class _Released(Exception):
    """The process reads no more."""


class _ReaderLeft(Exception):
    """The host has closed its side before the output's end."""


class _Interruptible:
    """A wait of one greenlet out of which others can wake it."""

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


class InputFlow:
    """From a host to a process. The bytes that the host may send and those that wait for the
    process never exceed the window together."""

    def __init__(self, channel: InputChannel, stream: Stream) -> None:
        """Become the channel's writer. Raises: Unknown when it has one."""
        self._channel = channel
        self._stream = stream
        self._granted = 0
        self._taken = Event()
        self._waiting = _Interruptible()
        self._token = channel.attach(self._taken)
        self._granter = gevent.spawn(self._grant)

    def run(self) -> None:
        """Carry bytes until the host, or the process, has had enough.

        Raises:
            ResourceExhausted: the host ignores its window.
            the stream's error: the host is gone; another call may go on.
        Blocks: the greenlet.
        """
        channel = self._channel
        while not (channel.ended or channel.released):
            try:
                with self._waiting:
                    data = self._stream.receive_data()
            except _Released:
                return
            if data is None:
                channel.end()
                return
            self._granted = max(0, self._granted - len(data))
            if data:
                channel.put(data)
                # Bytes that came in ahead of the process's end leave room in the window, too.
                self._taken.set()
            if channel.pending > MOST_UNGRANTED:
                raise ResourceExhausted("the sender ignores its window")

    def leave(self) -> None:
        """Make room for the next writer."""
        self._granter.kill()
        self._channel.detach(self._token)

    def _grant(self) -> None:
        """Grant the bytes that the process took, half a window or all of it at a time."""
        channel = self._channel
        while not channel.ended:
            if channel.released:
                self._waiting.interrupt(_Released)
                return
            room = WINDOW - self._granted - channel.pending
            if room >= WINDOW // 2 or (room > 0 and not channel.pending):
                try:
                    self._stream.send_grant(room)
                except Exception:
                    # `run` learns of it, too.
                    return
                self._granted += room
            self._taken.clear()
            self._taken.wait()


class OutputFlow:
    """From a process to a host that reads, as much as the host has granted.

    Bytes leave the channel when the kernel has taken the whole message for the host's connection.
    A grant does not acknowledge them: containerd grants 64 KiB whenever it has less than that
    left, so its grants trail its reading by up to 128 KiB, and to send those again would double
    lines. A host that vanishes therefore takes at most what it had granted with it; one that
    grants only what it is going to read loses nothing.

    A host that has granted and then closes its side
    - before the end, has left: its client has dropped the stream, or its user has gone. All that
      was not sent stays for the next reader.
    - after the end, has read everything: that is the acknowledgement.
    One that closes its side without ever having granted reads on, and gets everything at once.
    """

    def __init__(self, channel: OutputChannel, stream: Stream) -> None:
        """Become the channel's reader, in place of another one."""
        self.grants = False
        """Whether the host has granted anything; part of `channels.Reader`."""
        self._channel = channel
        self._stream = stream
        self._credit = 0
        self._limited = True
        self._pause = MessagePause(channel.prompt)
        self._in_flight: list[int] = []
        """The sizes of the messages that are queued and still in the channel."""
        self._preempted = False
        self._left = False
        self._error: Exception | None = None
        self._sending = _Interruptible()
        channel.attach(self)
        self._listener = gevent.spawn(self._listen)
        self._silence = gevent.spawn_later(SILENT, self._stop_waiting)

    def preempt(self) -> None:
        """Leave the channel to another reader; part of `channels.Reader`."""
        self._preempted = True
        self._settle()
        self._sending.interrupt(Preempted)

    def run(self) -> None:
        """Carry bytes until the channel's end, or until the host has left.

        Raises:
            Preempted: another reader has taken over.
            the stream's error: the host is gone.
        Blocks: the greenlet.
        """
        channel = self._channel
        try:
            while not (channel.empty and channel.ended):
                self._raise_if_over()
                limit = min(self._credit, BATCH) if self._limited else BATCH
                if channel.empty or limit <= 0:
                    channel.wait()
                elif (seconds := self._seconds_to_gather(limit)) > 0:
                    channel.wait(seconds)
                else:
                    self._deliver(channel.peek(limit))
            self._raise_if_over()
        except _ReaderLeft:
            return
        self._stream.end()
        self._await_acknowledgement()

    def leave(self) -> None:
        """Make room for the next reader."""
        for helper in (self._listener, self._silence):
            helper.kill()
        self._channel.detach(self)

    def _raise_if_over(self) -> None:
        if self._preempted:
            raise Preempted
        if self._error is not None:
            raise self._error
        if self._left:
            raise _ReaderLeft

    def _seconds_to_gather(self, limit: int) -> float:
        """Return the seconds to wait for more bytes before the next message."""
        full = self._channel.size >= min(limit, MESSAGE)
        if full or self._channel.ended or not self.grants:
            return 0
        return self._pause.before_send()

    def _await_acknowledgement(self) -> None:
        deadline = time.monotonic() + ACKNOWLEDGED
        while self.grants and not (self._preempted or self._left or self._error is not None):
            seconds = deadline - time.monotonic()
            if seconds <= 0 or self._channel.released:
                return
            self._channel.wait(seconds)

    def _deliver(self, data: memoryview) -> None:
        with self._sending:
            try:
                self._queue(data)
                sent = self._stream.flush()
            finally:
                self._settle()
        if not (sent or self._preempted):
            raise ConnectionError

    def _queue(self, data: memoryview) -> None:
        for start in range(0, len(data), MESSAGE):
            message = data[start : start + MESSAGE]
            self._stream.send_data(message)
            if self._preempted:
                # While it waited for room: the message is the successor's.
                self._stream.withdraw(1)
                raise Preempted
            self._in_flight.append(len(message))
            self._credit -= len(message)
            self._pause.after_send()

    def _settle(self) -> None:
        """Take out of the channel what the host has, or will have; leave the rest to the next."""
        sizes, self._in_flight = self._in_flight, []
        if sizes:
            withdrawn = self._stream.withdraw(len(sizes))
            self._channel.consume(sum(sizes[: len(sizes) - withdrawn]))

    def _listen(self) -> None:
        try:
            while (size := self._stream.receive_grant()) is not None:
                self._grant(max(0, size))
        except Exception as error:
            self._error = error
            self._channel.wake()
            return
        if self.grants:
            self._left = True
            self._sending.interrupt(_ReaderLeft)
            self._channel.wake()
        else:
            self._stop_waiting()

    def _grant(self, size: int) -> None:
        if not self.grants:
            # Messages that were sent before are not part of its account.
            self.grants = self._limited = True
            self._credit = 0
            self._silence.kill()
        self._credit += size
        self._pause.after_grant()
        self._channel.progress += 1
        self._channel.wake()

    def _stop_waiting(self) -> None:
        self._limited = False
        self._channel.wake()
