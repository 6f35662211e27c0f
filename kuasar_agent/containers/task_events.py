"""Task events of containerd, filled in from the records of processes.

https://github.com/containerd/containerd/blob/main/api/events/task.proto
"""

from __future__ import annotations

from typing import Protocol

from kuasar_agent.api import task_events_pb2 as messages
from kuasar_agent.containerd import set_exit
from kuasar_agent.events import Publish
from kuasar_agent.reaper import Exit
from kuasar_agent.stdio.urls import StdioUrls


class Record(Protocol):
    """The fields of a process's record that its events carry."""

    id: str
    urls: StdioUrls
    exit: Exit | None

    @property
    def pid(self) -> int: ...


class TaskEvents:
    """Publisher of the events of one container. Blocks: never."""

    def __init__(self, publish: Publish, container_id: str) -> None:
        self._publish = publish
        self._id = container_id

    def created(self, bundle: str, init: Record) -> None:
        """Publish the creation of the container."""
        stdin, stdout, stderr, terminal = init.urls
        io = messages.TaskIO(stdin=stdin, stdout=stdout, stderr=stderr, terminal=terminal)
        event = messages.TaskCreate(container_id=self._id, bundle=bundle, io=io, pid=init.pid)
        self._publish("/tasks/create", event)

    def started(self, init: Record) -> None:
        """Publish the start of the init process."""
        self._publish("/tasks/start", messages.TaskStart(container_id=self._id, pid=init.pid))

    def exec_added(self, exec_id: str) -> None:
        """Publish the addition of an exec."""
        event = messages.TaskExecAdded(container_id=self._id, exec_id=exec_id)
        self._publish("/tasks/exec-added", event)

    def exec_started(self, process: Record) -> None:
        """Publish the start of an exec."""
        event = messages.TaskExecStarted(container_id=self._id, exec_id=process.id, pid=process.pid)
        self._publish("/tasks/exec-started", event)

    def exited(self, process: Record) -> None:
        """Publish the exit of the init process, whose id is the container's, or of an exec."""
        event = messages.TaskExit(container_id=self._id, id=process.id, pid=process.pid)
        set_exit(event, process.exit)
        self._publish("/tasks/exit", event)

    def paused(self) -> None:
        """Publish that the container is frozen."""
        self._publish("/tasks/paused", messages.TaskPaused(container_id=self._id))

    def resumed(self) -> None:
        """Publish that the container runs again."""
        self._publish("/tasks/resumed", messages.TaskResumed(container_id=self._id))

    def checkpointed(self, path: str) -> None:
        """Publish that a checkpoint was written to `path`."""
        event = messages.TaskCheckpointed(container_id=self._id, checkpoint=path)
        self._publish("/tasks/checkpointed", event)

    def deleted(self, init: Record) -> None:
        """Publish the deletion of the container.

        There is none for an exec: containerd would take it for the deletion of the task.
        """
        event = messages.TaskDelete(container_id=self._id, pid=init.pid)
        set_exit(event, init.exit)
        self._publish("/tasks/delete", event)
