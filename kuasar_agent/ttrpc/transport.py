"""A core on a socket of gevent's loop, without a greenlet of its own.

The loop calls `_on_readable` and `_flush` in the hub, where nothing can wait. So the reader cannot
wait for the writer or for a handler, as in the deadlocks of containerd/ttrpc #72, #94, #168, #174.
One read gives one round of events; the frames that the round queues leave in one sendmsg(2).

`_handle` and `_on_closed` run in the hub. Other greenlets queue frames in the core and ask for a
flush, which runs at the end of the loop's round.
"""

from __future__ import annotations

import logging
import socket
from time import monotonic
from typing import TYPE_CHECKING

from gevent.event import Event as Flag
from gevent.hub import Waiter, get_hub

from .core import ConnectionCore, Events
from .status import DeadlineExceeded

if TYPE_CHECKING:
    from gevent._types import _TimerWatcher

logger = logging.getLogger(__name__)

READ = 1
WRITE = 2
FRAMES_AT_ONCE = 256
"""Frames in one sendmsg(2); IOV_MAX is 1024."""
SENDS_AT_ONCE = 4
"""Calls of sendmsg(2) before the loop runs its other watchers."""
LONGEST_TIMER = 1e8
"""Seconds; for a longer time no timer is started."""

# One buffer for all connections: the core copies what it keeps before another read can happen.
_buffer = bytearray(256 << 10)
_views = memoryview(_buffer)


class Parked:
    """A place where one greenlet at a time waits for an event of its call."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: Waiter[None] | None = None

    def park(self) -> None:
        """Wait for the next `wake`, after which the caller has to check its condition again.

        Raises:
            RuntimeError: Another greenlet waits here.
        Blocks: the greenlet.
        """
        if self._waiter is not None:
            raise RuntimeError("another greenlet is waiting on this stream already")
        waiter = self._waiter = Waiter()
        try:
            waiter.get()
        finally:
            self._waiter = None

    def wake(self) -> None:
        """Switch to the greenlet that waits, if one does. Hub only."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.switch(None)


class Transport:
    """A connected socket, which it owns, with its core; subclasses handle the core's events."""

    def __init__(self, sock: socket.socket, core: ConnectionCore) -> None:
        self.core = core
        self.closed = False
        self.received = self.sent = 0
        """Bytes."""
        self.close_when_idle = False
        """Set it to close once no call is in progress and everything is sent."""
        self._limits = core.limits
        self._receive = core.receive_data
        # A gevent socket would add watchers of its own.
        self._socket = socket.socket(sock.family, sock.type, sock.proto, sock.detach())
        self._socket.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # A small frame must not wait for the acknowledgement of the previous one (RFC 896).
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._hub = get_hub()
        loop = self._hub.loop
        self._run_callback = loop.run_callback
        self._reader = loop.io(self._socket.fileno(), READ)
        self._writer = loop.io(self._socket.fileno(), WRITE)
        self._writing = False
        self._flush_asked = False
        self._room: Flag | None = None
        self._progress: Flag | None = None
        self._stall_timer: _TimerWatcher | None = None
        self._reader.start(self._on_readable)

    def ask_flush(self) -> None:
        """Send the queued frames once every greenlet that is ready has run."""
        if self._flush_asked or self.closed:
            return
        if self._writing:
            self._close_if_stuck()
        else:
            self._flush_asked = True
            self._run_callback(self._flush)

    def flush(self) -> None:
        """Send the queued frames now, as far as the kernel accepts them; the rest follows."""
        if not (self._writing or self.closed):
            self._send_queued()

    def wait_for_room(self, deadline: float | None = None) -> None:
        """Wait until less than `Limits.outbox_wait` bytes are unsent, or the connection is closed.

        Raises:
            DeadlineExceeded: `deadline`, on the clock of time.monotonic(), has passed.
        Blocks: the greenlet.
        """
        while self.core.outbox.size >= self._limits.outbox_wait and not self.closed:
            if self._room is None:
                self._room = Flag()
            room = self._room
            if not room.wait(None if deadline is None else max(0.0, deadline - monotonic())):
                raise DeadlineExceeded("context deadline exceeded")

    def drain_stream(self, stream_id: int) -> bool:
        """Send a stream's frames and wait until the kernel has them; False if the socket is gone.

        Blocks: the greenlet.
        """
        self.flush()
        outbox = self.core.outbox
        while outbox.count(stream_id) and not self.closed:
            if self._progress is None:
                self._progress = Flag()
            self._progress.wait()
        return not outbox.count(stream_id)

    def close(self) -> None:
        """Close the socket and end every call; do nothing if it is closed."""
        if self.closed:
            return
        self.closed = True
        for watcher in (self._reader, self._writer, self._stall_timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._socket.close()
        self._run_callback(self._after_close)

    def resume_reading(self) -> None:
        """Read from the socket again if the congestion is over; call it after taking messages."""
        if self._stall_timer is not None and not self.core.congested and not self.closed:
            self._stall_timer.stop()
            self._stall_timer.close()
            self._stall_timer = None
            self._reader.start(self._on_readable)

    def _handle(self, events: Events) -> None:
        raise NotImplementedError

    def _on_closed(self) -> None:
        raise NotImplementedError

    def _after_close(self) -> None:
        for flag in (self._room, self._progress):
            if flag is not None:
                flag.set()
        self._on_closed()

    def _on_readable(self) -> None:
        try:
            count = self._socket.recv_into(_buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            # Many peers end a connection with a reset.
            count = 0
        if not count:
            self.close()
            return
        self.received += count
        # Frames that handlers queue from here on leave with the flush below.
        self._flush_asked = True
        try:
            events = self._receive(_views[:count])
            if events:
                self._handle(events)
        except Exception:
            logger.exception("closing a connection: internal error")
            self.close()
        if self.closed:
            return
        if self.core.congested:
            self._pause_reading()
        if self._writing:
            self._flush_asked = False
            self._close_if_stuck()
        else:
            self._flush()

    def _flush(self) -> None:
        self._flush_asked = False
        if not self.closed:
            self._send_queued()

    def _send_queued(self) -> None:
        outbox = self.core.outbox
        try:
            for _ in range(SENDS_AT_ONCE):
                if not outbox.size:
                    break
                count = self._socket.sendmsg(outbox.peek(FRAMES_AT_ONCE))
                self.sent += count
                outbox.consume(count)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()
            return
        if self._writing or outbox.size:
            self._watch_writable(bool(outbox.size))
        if self._room is not None and outbox.size < self._limits.outbox_wait:
            self._room.set()
            self._room = None
        if self._progress is not None:
            self._progress.set()
            self._progress = None
        if self.close_when_idle and not outbox.size and not self.core.streams:
            self.close()

    def _watch_writable(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._writer.start(self._flush)
            else:
                self._writer.stop()
        self._close_if_stuck()

    def _close_if_stuck(self) -> None:
        unsent = self.core.outbox.size
        if unsent >= self._limits.outbox_drop:
            logger.warning("closing a connection: its peer does not read, %d bytes unsent", unsent)
            self.close()

    def _pause_reading(self) -> None:
        if self._stall_timer is None:
            self._reader.stop()
            # The first call only sets the marks: each stream gets at least one whole period.
            self.core.expire()
            self._stall_timer = self._hub.loop.timer(self._limits.stall, self._limits.stall)
            self._stall_timer.start(self._on_stall)

    def _on_stall(self) -> None:
        self._handle(self.core.expire())
        self.resume_reading()
        self.ask_flush()
