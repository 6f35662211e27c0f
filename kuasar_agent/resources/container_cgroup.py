"""The cgroup of one container: what it uses, what it may use, and whom the OOM killer took."""

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
    """Found by the first process right after its creation; it outlives that process."""

    def __init__(self, id: str, watcher: OomWatcher) -> None:
        self._id = id
        self._watcher = watcher
        self._cgroup: Cgroup | None = None
        self._watch: OomWatch | None = None

    def follow(self, child: Child) -> None:
        """Take note of the cgroups of the first process and watch them. Never raises."""
        if child.exit is not None:  # its pid may be another's by now
            return
        try:
            self._cgroup = locate(child.pid)
        except OSError as error:
            log.warning("container's cgroup not found", id=self._id, pid=child.pid, error=error)
            return
        self._watch = self._watcher.watch(self._id, self._cgroup)

    def stats(self) -> AnyMessage:
        """Usage until now, of a stopped container too, as its cgroup stays until it is deleted.

        containerd's own shim answers so as well. Raises NotFound where there is no cgroup.
        """
        from kuasar_agent.resources import stats  # not needed before the agent serves

        # v1 is silent when the guest as a whole runs out of memory, and the host asks regularly.
        self.report_kills()
        return stats.collect(self._existing())

    def processes(self) -> list[int]:
        """The pids in it and below; none once it is gone."""
        if self._cgroup is None:
            return []
        # Every container has one of these; on v2 they are the same.
        paths = filter(None, map(self._cgroup.path, ("pids.max", "memory.stat", "devices.list")))
        directory = next((os.path.dirname(path) for path in paths), None)
        return cgroup_tree.processes(directory) if directory is not None else []

    def update(self, resources: Resources) -> None:
        """Change the limits. Raises as `resources.update`, and NotFound as `stats`."""
        from kuasar_agent.resources import limits  # likewise

        off_hub(limits.update, self._existing(), resources)

    def report_kills(self) -> None:
        """Publish the kills that were not published yet; to be called before an exit is told."""
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
