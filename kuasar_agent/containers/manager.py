"""The table of containers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import gevent.lock

from kuasar_agent.blocking import off_hub
from kuasar_agent.containers.bundle import Bundle, StdioUrls, load_bundle, write_spec
from kuasar_agent.containers.container import Container, RuntimeOptions
from kuasar_agent.containers.ids import check_id
from kuasar_agent.containers.process import Process
from kuasar_agent.containers.runtime import TIMEOUT, OCIRuntime, find_runtime
from kuasar_agent.errors import AlreadyExists, NotFound
from kuasar_agent.events import Publish
from kuasar_agent.linux.mount import mounts
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Reaper
from kuasar_agent.sandbox.storage import Storages
from kuasar_agent.stdio.stdio import Stdio
from kuasar_agent.stdio.transports import Transports, names_serial_port

if TYPE_CHECKING:
    from kuasar_agent.resources.oom import OomWatcher

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
        ports: Transports,
        state: str,
        storages: Storages,
        *,
        runtime: str = "",
        runtime_timeout: float = TIMEOUT,
        rescan: Callable[[], None] = lambda: None,
        publish: Publish = lambda topic, event: None,
    ) -> None:
        """`rescan` lets devices appear that the host plugged for a container; it may block.

        A runtime that does not end within `runtime_timeout` seconds is killed.
        """
        self._publish = publish
        self._reaper = reaper
        self._ports = ports
        self._state = state
        self._storages = storages
        self._runtime_name = runtime
        self._runtime_timeout = runtime_timeout
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
        bundle: Bundle = off_hub(self._load_bundle, id)
        self._storages.attach(id, bundle.storages, deadline)
        try:
            return self._create_from(bundle, id, requested, options)
        except BaseException:
            self._storages.release(id)
            raise

    def _load_bundle(self, id: str) -> Bundle:
        """Blocks."""
        self._rescan()
        return load_bundle(f"{self._state}/{id}", id)

    def _create_from(
        self, bundle: Bundle, id: str, requested: StdioUrls, options: CreateOptions
    ) -> Container:
        # Their messages are not needed before the agent serves.
        from kuasar_agent.containers.task_events import TaskEvents
        from kuasar_agent.resources.container_cgroup import ContainerCgroup

        urls = bundle.merge_stdio(requested)
        off_hub(_adapt, bundle, id, urls)
        binary = find_runtime(*self._runtime_names(options.binary))
        runtime = OCIRuntime(self._reaper, binary, options.root, self._runtime_timeout)
        self.footprints.append(Footprint(id, bundle.cgroups_path or f"/{id}", runtime.root))
        container = Container(
            id,
            bundle,
            runtime,
            Process(id, urls),
            partial(self._open_stdio, options.owner),
            TaskEvents(self._publish, id),
            ContainerCgroup(id, self._oom),
        )
        runtime_options = RuntimeOptions(
            no_pivot=options.runtime.no_pivot or self._no_pivot,
            no_new_keyring=options.runtime.no_new_keyring,
        )
        container.create(runtime_options)
        return container

    def _open_stdio(self, owner: tuple[int, int], urls: StdioUrls) -> Stdio:
        if any(names_serial_port(url) for url in (urls.stdin, urls.stdout, urls.stderr)):
            off_hub(self._rescan)
        return Stdio.open(urls, self._ports, owner)

    @cached_property
    def _oom(self) -> OomWatcher:
        from kuasar_agent.resources.oom import OomWatcher  # likewise

        return OomWatcher(self._publish)

    def _runtime_names(self, requested: str) -> tuple[str, ...]:
        if requested:
            return (requested,)
        return (self._runtime_name, "crun", "runc")


def _adapt(bundle: Bundle, id: str, urls: StdioUrls) -> None:
    """Make the specification on the share, and kernel parameters, fit the guest. Blocks."""
    # Not needed before the agent serves.
    from kuasar_agent.containers import spec
    from kuasar_agent.sandbox import sysctls

    parameters = spec.adapt_container(bundle.spec, terminal=urls.terminal, id=id)
    if parameters is not None:
        sysctls.write(parameters)
        write_spec(bundle)


class _Entry:
    """A place in the table, taken before the container exists."""

    def __init__(self) -> None:
        self.container: Container | None = None
        self.ready = gevent.lock.BoundedSemaphore()


def root_cannot_pivot() -> bool:
    """Whether pivot_root(2) refuses to leave `/`: the initramfs, or a chroot's plain directory."""
    return next((m.fstype == "rootfs" for m in mounts() if m.target == "/"), True)
