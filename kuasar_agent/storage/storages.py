"""The mounts below containers' root file systems and volumes, counted by user.

A storage is identified by its mount point. Several containers may use one: it is mounted for the
first of them and unmounted after the last, in whatever order they are deleted.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import gevent.lock

from kuasar_agent.blocking import off_hub
from kuasar_agent.devices import Devices
from kuasar_agent.errors import (
    AgentError,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from kuasar_agent.linux.mount import mount, unmount
from kuasar_agent.log import get_logger
from kuasar_agent.spans import traced
from kuasar_agent.storage.drivers import (
    Directory,
    Plan,
    Resolve,
    Storage,
    parse_storage,
    prepare,
)

log = get_logger(__name__)


class Storages:
    """The mounts that containers hold."""

    def __init__(self, devices: Devices, roots: Sequence[str]) -> None:
        """Take the directories below which mount points must be."""
        self._devices = devices
        self._roots = tuple(roots)
        self._held: dict[str, _Held] = {}

    @traced("storages")
    def attach(
        self,
        container_id: str,
        storages: Sequence[dict[str, Any]],
        deadline: float | None = None,
    ) -> None:
        """Mount the container's storages that are not mounted yet; on an error none stays mounted.

        Args:
            deadline: on time.monotonic()'s clock.

        Raises:
            InvalidArgument: a storage is not valid.
            DeadlineExceeded: a device was not plugged in by the deadline.
            AlreadyExists: another storage has the mount point.
            NotFound, FailedPrecondition: the kernel refuses.

        Blocks: the greenlet.
        """
        steps = []
        for raw in storages:
            storage = parse_storage(raw)
            resolve = prepare(storage)
            steps.append((storage._replace(mount_point=self._check(storage)), resolve))
        try:
            for storage, resolve in steps:
                self._hold(container_id, storage, resolve, deadline)
        except BaseException:
            self.release(container_id)
            raise

    @traced("storages release")
    def release(self, container_id: str) -> None:
        """Release the container's storages, the newest first; log a failure.

        Blocks: the greenlet.
        """
        for mount_point, held in reversed(list(self._held.items())):
            if container_id not in held.users:
                continue
            with held.lock:
                held.users.discard(container_id)
                if not held.users and self._held.get(mount_point) is held:
                    held.undo(mount_point)
                    del self._held[mount_point]

    def mount_points(self) -> list[str]:
        """Return the mount points in use."""
        return [path for path, held in self._held.items() if held.users]

    def _check(self, storage: Storage) -> str:
        """Return the normalized mount point. Raises InvalidArgument."""
        name, path = storage.id or storage.source, storage.mount_point
        if not path.startswith("/") or ".." in path.split("/"):
            raise InvalidArgument(
                f"storage {name}: mount_point {path!r} is not an absolute path without '..'"
            )
        path = os.path.normpath(path)
        if not any(path.startswith(f"{root}/") for root in self._roots):
            raise InvalidArgument(
                f"storage {name}: mount_point {path!r} is not below {' or '.join(self._roots)}"
            )
        return path

    def _hold(
        self, container_id: str, storage: Storage, resolve: Resolve, deadline: float | None
    ) -> None:
        mount_point = storage.mount_point
        while True:
            held = self._held.setdefault(mount_point, _Held(storage))
            with _locked(held.lock, mount_point, deadline):
                if self._held.get(mount_point) is not held:
                    continue  # its last user released it while this container waited
                if not held.users:
                    held.storage = storage
                    try:
                        self._make(held, resolve, deadline)
                    except BaseException:
                        del self._held[mount_point]
                        raise
                elif not held.storage.is_same(storage):
                    raise AlreadyExists(
                        f"storage {storage.id}: mount_point {mount_point!r} is taken by "
                        f"{held.storage.driver} {held.storage.source!r}"
                    )
                held.users.add(container_id)
                return

    def _make(self, held: _Held, resolve: Resolve, deadline: float | None) -> None:
        storage, started = held.storage, monotonic()
        mount_point = storage.mount_point
        off_hub(self._check_links, mount_point)
        plan = resolve(self._devices, deadline)
        if isinstance(plan, Directory):
            held.is_mount, held.created = False, off_hub(_make_directory, mount_point, plan)
        else:
            what = f"{storage.driver} {storage.source}"

            def attempt() -> bool | None:
                return off_hub(_mount, plan, mount_point, what)

            held.is_mount = True
            held.created = self._devices.wait_until(attempt, what, deadline)
        ms = f"{(monotonic() - started) * 1000:.1f}"
        log.info("storage ready", driver=storage.driver, target=mount_point, ms=ms)

    def _check_links(self, mount_point: str) -> None:
        real = os.path.realpath(mount_point)
        if not any(real.startswith(f"{os.path.realpath(root)}/") for root in self._roots):
            raise InvalidArgument(f"mount_point {mount_point!r} leads to {real!r}")


class _Held:
    """A mount point with the containers that use it."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.users: set[str] = set()
        self.lock = gevent.lock.BoundedSemaphore()
        """Guards `users`, the mount and the entry in Storages."""
        self.is_mount = True
        self.created = False
        """Whether the mount point was made for the mount and goes with it."""

    def undo(self, mount_point: str) -> None:
        """Unmount, and remove a mount point that was made; log a failure."""
        try:
            off_hub(_remove, mount_point, self.is_mount, self.created)
        except OSError as error:
            log.warning("storage not released", target=mount_point, error=error)
        else:
            log.info("storage released", target=mount_point)


@contextmanager
def _locked(
    lock: gevent.lock.BoundedSemaphore, mount_point: str, deadline: float | None
) -> Iterator[None]:
    """Hold the lock of a mount point in the block. Raises DeadlineExceeded."""
    remaining = None if deadline is None else max(0.0, deadline - monotonic())
    if not lock.acquire(timeout=remaining):
        raise DeadlineExceeded(f"timeout waiting for {mount_point}: another container mounts it")
    try:
        yield
    finally:
        lock.release()


def _mount(plan: Plan, mount_point: str, what: str) -> bool | None:
    """Mount and return whether the mount point was made; None if the device is missing."""
    try:
        created = _make_file(mount_point) if plan.is_file else _make_directories(mount_point)
    except OSError as error:
        raise FailedPrecondition(f"cannot make mount_point {mount_point}: {error}") from None
    try:
        mount(plan.source, mount_point, plan.fstype, plan.options)
    except OSError as error:
        if created:
            _remove_empty(mount_point)
        if plan.absent and error.errno == plan.absent:
            return None
        raise _explain(error, plan, mount_point, what) from None
    return created


def _make_directory(path: str, wanted: Directory) -> bool:
    try:
        created = _make_directories(path)
        if created:
            os.chown(path, wanted.uid, wanted.gid)
            os.chmod(path, wanted.mode)
    except OSError as error:
        raise FailedPrecondition(f"cannot make {path}: {error}") from None
    return created


def _make_directories(path: str) -> bool:
    """Make directories; return whether the last one was missing. Raises OSError."""
    if os.path.isdir(path):
        return False
    os.makedirs(path)
    return True


def _make_file(path: str) -> bool:
    """Make a file; return whether it was missing. Raises OSError."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not os.path.isfile(path):
            raise
        return False
    return True


def _remove(path: str, is_mount: bool, created: bool) -> None:
    """Unmount, and remove the mount point if it was made; detach a busy mount. Raises OSError."""
    if is_mount:
        unmount(path)
        if created:
            _remove_empty(path)
    elif created:
        # Imported late: few guests have such a storage, and the import delays start-up.
        import shutil

        shutil.rmtree(path)


def _remove_empty(path: str) -> None:
    if os.path.isdir(path):
        os.rmdir(path)
    else:
        os.unlink(path)


def _explain(error: OSError, plan: Plan, mount_point: str, what: str) -> AgentError:
    text = f"cannot mount {what} as {plan.fstype} on {mount_point}: {error.strerror}"
    if error.errno == errno.ENODEV:
        return InvalidArgument(f"{text} (the kernel does not know this file system)")
    if error.errno == errno.EINVAL:
        return InvalidArgument(f"{text} (wrong file system, bad option or damaged superblock)")
    if error.errno == errno.ENOENT:
        return NotFound(text)
    return FailedPrecondition(text)
