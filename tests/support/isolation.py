"""Running a test's body in namespaces of its own, so that it may mount what it likes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from kuasar_agent.linux import syscalls
from kuasar_agent.linux.mount import mount, mounts

T = TypeVar("T")


def isolated(body: Callable[[], T], flags: int = 0) -> T:
    """The result of `body`, run in a child process with a private mount namespace.

    `flags` adds namespaces (CLONE_NEW…); with a new pid namespace `body` runs as its pid 1.
    An exception of `body` fails the test with its traceback.
    """

    def child() -> T:
        syscalls.unshare(syscalls.CLONE_NEWNS | flags)
        make_mounts_private()
        return fork(body) if flags & syscalls.CLONE_NEWPID else body()

    return fork(child)


def is_mounted(target: str) -> bool:
    """Return whether this namespace has a mount at exactly `target`."""
    return any(entry.target == target for entry in mounts())


def make_mounts_private() -> None:
    """Let no mount of this namespace reach another one."""
    # In a chroot `/` is no mount point; what is mounted below it then has to do.
    targets = {entry.target for entry in mounts()}
    for target in {"/"} & targets or targets:
        mount(None, target, None, ["rprivate"])


def fork(body: Callable[[], T]) -> T:
    """The result of `body`, run in a child process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            try:
                result: tuple[bool, object] = True, body()
            except BaseException:
                result = False, traceback.format_exc()
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(result, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert data, f"the child ended with wait status {status:#x}"
    succeeded, value = pickle.loads(data)
    assert succeeded, value
    return value  # type: ignore[no-any-return]


def fresh_process(body: Callable[[], T]) -> T:
    """The result of `body`, a function of a module, in a new interpreter without a gevent hub.

    Orphans among the descendants of that process become its children.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, syscalls.set_child_subreaper) as pool:
        return pool.submit(body).result()
