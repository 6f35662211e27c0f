"""OOM kills: an event for every process of a container that the OOM killer ended.

The kernel counts the victims of a cgroup (`oom_kill` in v2's memory.events and in v1's
memory.oom_control) before it sends the signal: the count is there when the exit is seen. The
notice differs. On v2 poll(2) reports memory.events as urgent data when it changes. On v1 an eventfd
fires when a limit is hit, before the victim is chosen, and it does not fire when the guest as a
whole runs out of memory; so the count is read once more when the container ends.

Kernel: admin-guide/cgroup-v2.rst, admin-guide/cgroup-v1/memory.rst ("OOM Control").
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

import gevent

from kuasar_agent.events import OOM_TOPIC, Publish
from kuasar_agent.linux.cgroup_files import Cgroup, parse_flat
from kuasar_agent.linux.files import read_text, write_text
from kuasar_agent.log import get_logger

log = get_logger(__name__)

# Seconds after v1's notice at which the count is read again: the kernel writes a report to the
# console before it kills, which may take long.
_SOON = (0.001, 0.01, 0.05, 0.2, 0.5, 1.0, 3.0)

_EVENTS_AT_ONCE = 64
"""Events of one kill; a cgroup killed as a whole must not push all others out of the queue."""


class Counter:
    """The count of a cgroup's victims, and a descriptor that becomes ready when it may change."""

    mask: ClassVar[int]
    """The events to poll the descriptor for."""
    early: ClassVar[bool]
    """Whether the descriptor becomes ready before the count has changed."""

    def __init__(self, path: str, fd: int) -> None:
        """Take over `fd`, and close it on failure.

        Raises:
            OSError: the cgroup cannot be watched.
        """
        self.path = path
        self.fd = fd
        self._seen = 0
        try:
            self._prepare()
            self.new()
        except BaseException:
            self.close()
            raise

    def descriptors(self) -> list[int]:
        return [self.fd]

    def new(self) -> int:
        """Return the number of victims since the last call.

        Raises:
            OSError: the cgroup is gone.
        """
        count = self._read()
        new, self._seen = count - self._seen, count
        return max(new, 0)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)
        self.fd = -1

    def _prepare(self) -> None:
        """Arm the descriptor."""

    def _read(self) -> int:
        raise NotImplementedError


class EventsFile(Counter):
    """Counter of v2: memory.events, which stays urgent until it is read."""

    mask = select.EPOLLPRI
    early = False

    def __init__(self, path: str) -> None:
        super().__init__(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def _read(self) -> int:
        return parse_flat(os.pread(self.fd, 4096, 0).decode()).get("oom_kill", 0)


class OomEventfd(Counter):
    """Counter of v1: an eventfd registered for memory.oom_control."""

    mask = select.EPOLLIN
    early = True

    def __init__(self, path: str) -> None:
        super().__init__(path, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))

    def _prepare(self) -> None:
        control = f"{os.path.dirname(self.path)}/cgroup.event_control"
        # The kernel resolves the descriptor at registration and needs it no longer.
        watched = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            write_text(control, f"{self.fd} {watched}")
        finally:
            os.close(watched)

    def _read(self) -> int:
        with suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        return parse_flat(read_text(self.path)).get("oom_kill", 0)


class OomWatch:
    """Watch of one container; owns the counter until it is closed."""

    def __init__(
        self, id: str, counter: Counter, publish: Publish, forget: Callable[[int], None]
    ) -> None:
        """`forget` is called with the descriptor before it is closed."""
        self._id = id
        self._counter = counter
        self._publish = publish
        self._forget = forget
        self._closed = False
        self._following = False

    def look(self) -> bool:
        """Publish the kills since the last look and tell whether there were any.

        The watch ends when the cgroup is gone. Blocks: never. Raises nothing.
        """
        if self._closed:
            return False
        try:
            new = self._counter.new()
        except OSError as error:
            log.debug("end of an OOM watch", id=self._id, error=error)
            self.close()
            return False
        if new:
            self._report(new)
        return new > 0

    def wake(self) -> None:
        """Handle the descriptor becoming ready."""
        if self.look() or self._closed or self._following or not self._counter.early:
            return
        self._following = True
        gevent.spawn(self._look_again)

    def close(self) -> None:
        """End the watch; may be called more than once."""
        if not self._closed:
            self._closed = True
            self._forget(self._counter.fd)
            self._counter.close()

    def _report(self, processes: int) -> None:
        # The messages are not needed before the agent serves.
        from kuasar_agent.api.task_events_pb2 import TaskOOM

        log.warning("killed for lack of memory", id=self._id, processes=processes)
        for _ in range(min(processes, _EVENTS_AT_ONCE)):
            self._publish(OOM_TOPIC, TaskOOM(container_id=self._id))

    def _look_again(self) -> None:
        try:
            for pause in _SOON:
                gevent.sleep(pause)
                if self.look() or self._closed:
                    return
        finally:
            self._following = False


class OomWatcher:
    """Watches all containers, with a descriptor for each and one epoll for all."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._watches: dict[int, OomWatch] = {}
        self._poll: _Poll | None = None

    def watch(self, id: str, cgroup: Cgroup) -> OomWatch | None:
        """Watch a container; None, and a line in the log, where the kernel does not allow it."""
        v1 = cgroup.version == 1
        path = cgroup.path("memory.oom_control" if v1 else "memory.events")
        if path is None:
            log.warning("no OOM events: the memory controller is not mounted", id=id)
            return None
        try:
            return self._add(id, OomEventfd(path) if v1 else EventsFile(path))
        except OSError as error:
            log.warning("no OOM events", id=id, error=error)
            return None

    def _add(self, id: str, counter: Counter) -> OomWatch:
        watch = self._watches[counter.fd] = OomWatch(id, counter, self._publish, self._remove)
        try:
            self._poll = self._poll or _Poll(self._wake)
            self._poll.epoll.register(counter.fd, counter.mask)
        except OSError:
            watch.close()
            raise
        return watch

    def _remove(self, fd: int) -> None:
        del self._watches[fd]
        if self._poll is not None:
            with suppress(OSError):  # registering it may have failed
                self._poll.epoll.unregister(fd)
            if not self._watches:
                self._poll.close()
                self._poll = None

    def _wake(self, fd: int) -> None:
        if (watch := self._watches.get(fd)) is not None:
            watch.wake()


class _Poll:
    """An epoll for EPOLLPRI, which gevent's loop does not know; the loop waits for the epoll."""

    def __init__(self, wake: Callable[[int], None]) -> None:
        """`wake` is called in the hub with each descriptor that is ready."""
        self.epoll = select.epoll()
        self._wake = wake
        self._waker = gevent.get_hub().loop.io(self.epoll.fileno(), 1)
        self._waker.start(self._on_event)

    def close(self) -> None:
        self._waker.stop()
        self._waker.close()
        self.epoll.close()

    def _on_event(self) -> None:
        for fd, _ in self.epoll.poll(0):
            self._wake(fd)
