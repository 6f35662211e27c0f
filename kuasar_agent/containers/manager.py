"""The table of containers."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import gevent.lock

from kuasar_agent.blocking import off_hub
from kuasar_agent.containers.bundle import Bundle, StdioUrls, load_bundle, require_terminal
from kuasar_agent.containers.container import Container, RuntimeOptions
from kuasar_agent.containers.ids import check_id
from kuasar_agent.containers.process import Process
from kuasar_agent.containers.runtime import OCIRuntime, find_runtime
from kuasar_agent.containers.stdio import Stdio
from kuasar_agent.containers.transports import StreamPorts
from kuasar_agent.events import Publish
from kuasar_agent.linux.mount import mounts
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Reaper
from kuasar_agent.sandbox.storage import Storages
from kuasar_agent.ttrpc.status import AlreadyExists, NotFound

log = get_logger(__name__)


REMEMBERED = 1024


class CreateOptions(NamedTuple):
    """The runtime options of a Create request (containerd.runc.v1.Options)."""

    binary: str = ""
    root: str = ""
    owner: tuple[int, int] = (0, 0)
    """uid and gid that own the container's ends of its pipes."""
    runtime: RuntimeOptions = RuntimeOptions()


class Footprint(NamedTuple):
    """Where a container may leave something behind."""

    id: str
    cgroup: str
    runtime_root: str


class Containers:
    """Creates, finds and deletes containers; an id names at most one at any time."""

    def __init__(
        self,
        reaper: Reaper,
        ports: StreamPorts,
        state: str,
        storages: Storages,
        *,
        runtime: str = "",
        rescan: Callable[[], None] = lambda: None,
        publish: Publish = lambda topic, event: None,
    ) -> None:
        """`rescan` lets devices appear that the host plugged for a container; it may block."""
        self._publish = publish
        self._reaper = reaper
        self._ports = ports
        self._state = state
        self._storages = storages
        self._runtime_name = runtime
        self._rescan = rescan
        self._table: dict[str, _Entry] = {}
        self.footprints: deque[Footprint] = deque(maxlen=REMEMBERED)
        """Of the containers created last, whatever became of them: the leak report looks there."""
        self._no_pivot = root_cannot_pivot()

    def create(
        self,
        id: str,
        requested: StdioUrls,
        options: CreateOptions,
        deadline: float | None = None,
    ) -> Container:
        """Create a container from its bundle in the shared directory.

        Devices are waited for until `deadline` (on time.monotonic()'s clock). Raises AlreadyExists
        before anything is touched; on any other failure everything that was done is undone.
        """
        check_id(id)
        if id in self._table:
            raise AlreadyExists(f"task {id}: already exists")
        entry = self._table[id] = _Entry()
        try:
            with entry.ready:
                entry.container = self._create(id, requested, options, deadline)
        except BaseException:
            del self._table[id]
            raise
        log.info("container created", id=id, pid=entry.container.init.pid)
        return entry.container

    def get(self, id: str) -> Container:
        """The container, once its creation ended. Raises NotFound."""
        check_id(id)
        if (entry := self._table.get(id)) is not None:
            with entry.ready:
                if entry.container is not None:
                    return entry.container
        raise NotFound(f"can not find container by id {id}")

    def live(self) -> dict[str, Container | None]:
        """Every container by its id; None for one that is being created."""
        return {id: entry.container for id, entry in self._table.items()}

    def delete(self, id: str) -> Container:
        """Delete a container and forget it. Raises NotFound."""
        container = self.get(id)
        container.delete()
        entry = self._table.get(id)
        if entry is not None and entry.container is container:
            self._storages.release(id)
            del self._table[id]
            log.info("container deleted", id=id)
        return container

    def _create(
        self, id: str, requested: StdioUrls, options: CreateOptions, deadline: float | None
    ) -> Container:
        off_hub(self._rescan)
        bundle: Bundle = off_hub(load_bundle, f"{self._state}/{id}", id)
        self._storages.attach(id, bundle.storages, deadline)
        try:
            return self._create_from(bundle, id, requested, options)
        except BaseException:
            self._storages.release(id)
            raise

    def _create_from(
        self, bundle: Bundle, id: str, requested: StdioUrls, options: CreateOptions
    ) -> Container:
        urls = bundle.merge_stdio(requested)
        if urls.terminal and not (bundle.spec.get("process") or {}).get("terminal"):
            off_hub(require_terminal, bundle)
            log.info("spec changed: process.terminal is true", id=id)
        binary = find_runtime(*self._runtime_names(options.binary))
        runtime = OCIRuntime(self._reaper, binary, options.root)
        cgroup = (bundle.spec.get("linux") or {}).get("cgroupsPath") or f"/{id}"
        self.footprints.append(Footprint(id, str(cgroup), runtime.root))
        container = Container(id, bundle, runtime, Process(id, urls))
        runtime_options = RuntimeOptions(
            no_pivot=options.runtime.no_pivot or self._no_pivot,
            no_new_keyring=options.runtime.no_new_keyring,
        )
        container.create(Stdio.open(urls, self._ports, options.owner), runtime_options)
        return container

    def _runtime_names(self, requested: str) -> tuple[str, ...]:
        if requested:
            return (requested,)
        return (self._runtime_name, "crun", "runc")


class _Entry:
    """A place in the table, taken before the container exists."""

    def __init__(self) -> None:
        self.container: Container | None = None
        self.ready = gevent.lock.BoundedSemaphore()


def root_cannot_pivot() -> bool:
    """Whether pivot_root(2) refuses to leave `/`: the initramfs, or a chroot's plain directory."""
    return next((m.fstype == "rootfs" for m in mounts() if m.target == "/"), True)
