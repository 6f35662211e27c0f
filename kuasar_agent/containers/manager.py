"""The table of containers: creating, finding and deleting them by id."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import gevent.lock

from kuasar_agent.blocking import off_hub
from kuasar_agent.containers.bundle import Bundle, load_bundle, write_spec
from kuasar_agent.containers.container import Container
from kuasar_agent.containers.ids import check_id
from kuasar_agent.containers.process import ContainerContext
from kuasar_agent.containers.runtime import TIMEOUT, OCIRuntime, RuntimeOptions, find_runtime
from kuasar_agent.containers.shared_lock import SharedLock
from kuasar_agent.errors import AlreadyExists, NotFound
from kuasar_agent.events import Publish
from kuasar_agent.linux.mount import mounts
from kuasar_agent.log import get_logger
from kuasar_agent.reaper import Reaper
from kuasar_agent.stdio.stdio import Stdio
from kuasar_agent.stdio.transports import Transports, names_serial_port
from kuasar_agent.stdio.urls import StdioUrls
from kuasar_agent.storage.storages import Storages

if TYPE_CHECKING:
    from kuasar_agent.resources.oom import OomWatcher

log = get_logger(__name__)

REMEMBERED = 1024
"""Containers whose footprints are kept."""


class CreateOptions(NamedTuple):
    """The runtime options of a Create request (containerd.runc.v1.Options)."""

    binary: str = ""
    root: str = ""
    owner: tuple[int, int] = (0, 0)
    """uid and gid that own the container's ends of its pipes."""
    runtime: RuntimeOptions = RuntimeOptions()


class CreateRequest(NamedTuple):
    """A Create request, decoded."""

    id: str
    urls: StdioUrls
    options: CreateOptions = CreateOptions()
    deadline: float | None = None
    """On time.monotonic()'s clock: devices are waited for until then."""


class Settings(NamedTuple):
    """Settings of the agent that concern containers."""

    state: str
    """The directory shared by the host, with a bundle per container."""
    runtime: str = ""
    """The OCI runtime to prefer."""
    runtime_timeout: float = TIMEOUT
    """Seconds after which a command of the runtime is killed."""
    rescan: Callable[[], None] = lambda: None
    """Has the kernel look for devices that the host plugged for a container; may block."""


class Footprint(NamedTuple):
    """The places where a container may leave something behind."""

    id: str
    cgroup: str
    runtime_root: str


class Containers:
    """Creates, finds and deletes containers; an id names at most one at any time."""

    def __init__(
        self,
        reaper: Reaper,
        transports: Transports,
        storages: Storages,
        settings: Settings,
        publish: Publish = lambda topic, event: None,
    ) -> None:
        self._reaper = reaper
        self._transports = transports
        self._storages = storages
        self._settings = settings
        self._publish = publish
        self._table: dict[str, _Entry] = {}
        self.footprints: deque[Footprint] = deque(maxlen=REMEMBERED)
        """Of the containers created last, deleted ones included, for the leak report."""
        self._no_pivot = root_cannot_pivot()

    def create(self, request: CreateRequest) -> Container:
        """Create a container from its bundle in the shared directory.

        Raises:
            AlreadyExists: the id is taken; nothing was touched.
            AgentError: any other failure; every step that was taken is undone.
        """
        id = request.id
        check_id(id)
        if id in self._table:
            raise AlreadyExists(f"task {id}: already exists")
        entry = self._table[id] = _Entry()
        try:
            with entry.ready:
                entry.container = self._create(request)
        except BaseException:
            del self._table[id]
            raise
        log.info("container created", id=id, pid=entry.container.init.pid)
        return entry.container

    def get(self, id: str) -> Container:
        """Return a container, after its creation if that is under way.

        Raises:
            NotFound: there is no container of that id.
        """
        check_id(id)
        if (entry := self._table.get(id)) is not None:
            with entry.ready:
                if entry.container is not None:
                    return entry.container
        raise NotFound(f"can not find container by id {id}")  # contract: Kuasar

    def live(self) -> dict[str, Container | None]:
        """Return every container by its id; None for one that is being created."""
        return {id: entry.container for id, entry in self._table.items()}

    def delete(self, id: str) -> Container:
        """Delete a container and forget it.

        Raises:
            NotFound: there is no container of that id, or another call deleted it first.
        """
        container = self.get(id)
        container.delete()
        entry = self._table.get(id)
        if entry is not None and entry.container is container:
            self._storages.release(id)
            del self._table[id]
            log.info("container deleted", id=id)
        return container

    def _create(self, request: CreateRequest) -> Container:
        bundle: Bundle = off_hub(self._load_bundle, request.id)
        self._storages.attach(request.id, bundle.storages, request.deadline)
        try:
            container = self._build(bundle, request)
            container.init.create()
        except BaseException:
            self._storages.release(request.id)
            raise
        return container

    def _load_bundle(self, id: str) -> Bundle:
        """Blocks: a thread."""
        self._settings.rescan()
        return load_bundle(f"{self._settings.state}/{id}", id)

    def _build(self, bundle: Bundle, request: CreateRequest) -> Container:
        """Build the container's parts from the adapted bundle."""
        # Their messages are not needed before the agent serves.
        from kuasar_agent.containers.task_events import TaskEvents
        from kuasar_agent.resources.container_cgroup import ContainerCgroup

        id, options = request.id, request.options
        urls = bundle.merge_stdio(request.urls)
        off_hub(_adapt, bundle, id, urls)
        binary = find_runtime(*self._runtime_names(options.binary))
        runtime = OCIRuntime(self._reaper, binary, options.root, self._settings.runtime_timeout)
        self.footprints.append(Footprint(id, bundle.cgroups_path or f"/{id}", runtime.root))
        context = ContainerContext(
            id,
            bundle,
            runtime,
            partial(self._open_stdio, options.owner),
            TaskEvents(self._publish, id),
            ContainerCgroup(id, self._oom),
            SharedLock(),
        )
        no_pivot = options.runtime.no_pivot or self._no_pivot
        return Container(context, urls, options.runtime._replace(no_pivot=no_pivot))

    def _open_stdio(self, owner: tuple[int, int], urls: StdioUrls) -> Stdio:
        if any(names_serial_port(url) for url in (urls.stdin, urls.stdout, urls.stderr)):
            off_hub(self._settings.rescan)
        return Stdio.open(urls, self._transports, owner)

    @cached_property
    def _oom(self) -> OomWatcher:
        from kuasar_agent.resources.oom import OomWatcher  # not needed before the agent serves

        return OomWatcher(self._publish)

    def _runtime_names(self, requested: str) -> tuple[str, ...]:
        if requested:
            return (requested,)
        return (self._settings.runtime, "crun", "runc")


def _adapt(bundle: Bundle, id: str, urls: StdioUrls) -> None:
    """Make the specification on the share, and kernel parameters, fit the guest. Blocks."""
    # Not needed before the agent serves.
    from kuasar_agent.containers import spec
    from kuasar_agent.linux import sysctls

    parameters = spec.adapt_container(bundle.spec, terminal=urls.terminal, id=id)
    if parameters is not None:
        sysctls.write(parameters)
        write_spec(bundle)


class _Entry:
    """A place in the table, taken before the container exists."""

    def __init__(self) -> None:
        self.container: Container | None = None
        self.ready = gevent.lock.BoundedSemaphore()
        """Held while the container is being created."""


def root_cannot_pivot() -> bool:
    """Tell whether pivot_root(2) refuses to leave `/`: an initramfs, or a chroot's directory."""
    return next((m.fstype == "rootfs" for m in mounts() if m.target == "/"), True)
