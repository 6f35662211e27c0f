"""The cgroup of one container: usage, limits and OOM kills."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kuasar_agent.blocking import off_hub
from kuasar_agent.errors import NotFound
from kuasar_agent.linux import cgroup_tree
from kuasar_agent.linux.cgroup_files import Cgroup, locate
from kuasar_agent.log import get_logger
from kuasar_agent.resources.oom import OomWatch, OomWatcher

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage

    from kuasar_agent.reaper import Child
    from kuasar_agent.resources.limits_spec import Resources

log = get_logger(__name__)


class ContainerCgroup:
    """The cgroup, located through the init process's /proc/PID/cgroup when it is created.

    It stays valid after that process has ended, until the container is deleted.
    """

    def __init__(self, id: str, watcher: OomWatcher) -> None:
        self._id = id
        self._watcher = watcher
        self._cgroup: Cgroup | None = None
        self._watch: OomWatch | None = None

    def follow(self, child: Child) -> None:
        """Locate the cgroup of the init process and watch it for OOM kills; failures are logged."""
        if child.exit is not None:  # the pid may belong to another process by now
            return
        try:
            self._cgroup = locate(child.pid)
        except OSError as error:
            log.warning("container's cgroup not found", id=self._id, pid=child.pid, error=error)
            return
        self._watch = self._watcher.watch(self._id, self._cgroup)

    def stats(self) -> AnyMessage:
        """Return the usage, of a stopped container as well, as containerd's own shim does.

        Raises:
            NotFound: the cgroup does not exist.
        """
        from kuasar_agent.resources import stats  # not needed before the agent serves

        # v1 gives no notice when the guest as a whole runs out of memory; the host asks regularly.
        self.report_kills()
        return stats.collect(self._existing())

    def processes(self) -> list[int]:
        """Return the pids in the cgroup and below; none once it is removed."""
        if self._cgroup is None:
            return []
        # Every container has one of these files; on v2 they share a directory.
        paths = filter(None, map(self._cgroup.path, ("pids.max", "memory.stat", "devices.list")))
        directory = next((os.path.dirname(path) for path in paths), None)
        return cgroup_tree.processes(directory) if directory is not None else []

    def update(self, resources: Resources) -> None:
        """Change the limits. Blocks: the greenlet, while the kernel reclaims memory.

        Raises:
            NotFound: the cgroup does not exist.
            AgentError: see `limits.update`.
        """
        from kuasar_agent.resources import limits  # not needed before the agent serves

        off_hub(limits.update, self._existing(), resources)

    def report_kills(self) -> None:
        """Publish the OOM kills that were not published yet; call it before an exit is told."""
        if self._watch is not None:
            self._watch.look()

    def close(self) -> None:
        """End the watch."""
        if self._watch is not None:
            self._watch.close()

    def _existing(self) -> Cgroup:
        if self._cgroup is None or not self._cgroup.exists():
            raise NotFound(f"container {self._id}: cgroup does not exist")
        return self._cgroup
