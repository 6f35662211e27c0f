"""Clean-up after a failed create: runtime records and cgroups."""

from __future__ import annotations

from kuasar_agent.blocking import off_hub
from kuasar_agent.containers.bundle import Bundle
from kuasar_agent.containers.runtime import OCIRuntime
from kuasar_agent.errors import AgentError
from kuasar_agent.linux import cgroup_tree
from kuasar_agent.log import get_logger

log = get_logger(__name__)


class CreateCleanup:
    """Removes the remains of one create.

    Construct it before the runtime runs: it records the cgroups that exist already, which stay.
    """

    def __init__(self, runtime: OCIRuntime, bundle: Bundle, id: str) -> None:
        self._runtime = runtime
        self._id = id
        self._cgroups_path = bundle.cgroups_path or f"/{id}"
        self._had_cgroup = set(cgroup_tree.directories(self._cgroups_path))

    def remove(self) -> None:
        """Delete by the runtime, then by hand: a runtime that was killed left no record."""
        import shutil  # a failed create is rare, and start-up does without it

        try:
            self._runtime.delete(self._id)
        except AgentError as error:
            log.warning("clean-up after a failed create", id=self._id, error=error)
        off_hub(self._remove_cgroups)
        off_hub(shutil.rmtree, f"{self._runtime.root}/{self._id}", ignore_errors=True)

    def _remove_cgroups(self) -> None:
        for directory in set(cgroup_tree.directories(self._cgroups_path)) - self._had_cgroup:
            log.info("cgroup of a failed create removed", id=self._id, path=directory)
            if not cgroup_tree.remove(directory):
                log.error("cgroup not removed", path=directory)
