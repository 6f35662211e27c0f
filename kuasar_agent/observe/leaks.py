"""The leak report: resources that no living part of the agent accounts for.

    fd         no reachable object owns it, and it was not open when the agent began to serve
    greenlet   works on no object that is reachable from the agent
    zombie     a child that ended and was not reaped
    mount      in a directory of containers, and held by no container
    cgroup     of a deleted container
    file       state of the runtime or a console socket, of a deleted container
    stream     a channel of the Streaming service, used by a deleted container

The report is a snapshot: a resource that is just being released may appear. A second report tells.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kuasar_agent.blocking import off_hub
from kuasar_agent.containers.manager import Footprint
from kuasar_agent.directories import STORAGE
from kuasar_agent.linux.mount import mounts
from kuasar_agent.log import console
from kuasar_agent.observe import greenlets, procfs
from kuasar_agent.observe.reachable import Reachable
from kuasar_agent.stdio.console_socket import ConsoleSocket

if TYPE_CHECKING:
    from kuasar_agent.observe.parts import Parts

_CONSOLES = "/run/pty*"


class Leak(NamedTuple):
    """One resource that no part of the agent accounts for."""

    kind: str
    what: str
    detail: str = ""


class Leaks:
    """Comparison of the process's resources with those that the agent's parts account for."""

    def __init__(self, parts: Parts) -> None:
        """Record the descriptors and mounts of this moment, which are never reported.

        To be called once the agent serves and has opened the descriptors that it keeps.
        """
        self._parts = parts
        self._own_fds = procfs.open_fds()
        self._own_mounts = {(entry.mount_id, entry.target) for entry in mounts()}
        self._is_guest = os.getpid() == 1

    def report(self) -> list[Leak]:
        """Return the leaks of this moment. Blocks: the greenlet, while a thread reads files."""
        self._parts.reaper.reap()
        living = set(self._parts.containers.live())
        gone = [known for known in self._parts.containers.footprints if known.id not in living]
        reachable = Reachable([self._parts, console])
        streams = self._streams(living, {known.id for known in gone})
        found = [*self._fds(reachable), *_greenlets(reachable), *streams]
        consoles = {os.path.dirname(it.socket_path) for it in reachable.instances(ConsoleSocket)}
        return found + off_hub(self._on_disk, gone, consoles)

    def _on_disk(self, gone: list[Footprint], consoles: set[str]) -> list[Leak]:
        return [
            *(Leak("zombie", str(pid), name) for pid, name in procfs.zombies()),
            *self._mounts(gone),
            *_cgroups(gone),
            *self._files(gone, consoles),
        ]

    def _fds(self, reachable: Reachable) -> Iterator[Leak]:
        for number, target in sorted(procfs.open_fds().items()):
            if number not in reachable.fds and self._own_fds.get(number) != target:
                yield Leak("fd", str(number), target)

    def _streams(self, living: set[str], gone: set[str]) -> Iterator[Leak]:
        """Yield the channels of deleted containers that a process has used and not released."""
        channels, ids = self._parts.channels, living | gone
        for id, output in channels.outputs.items():
            if _owner(id, ids) in gone and output.produced and not output.released:
                yield Leak("stream", id, "output of a deleted container")
        for id, input in channels.inputs.items():
            if _owner(id, ids) in gone and input.used and not input.released:
                yield Leak("stream", id, "input of a deleted container")

    def _mounts(self, gone: list[Footprint]) -> Iterator[Leak]:
        held = self._parts.storages.mount_points()
        ids = {known.id for known in gone}
        for entry in mounts():
            if (entry.mount_id, entry.target) in self._own_mounts or entry.target in held:
                continue
            names_deleted = ids.intersection(entry.target.split("/"))
            if names_deleted or entry.target.startswith(f"{STORAGE}/"):
                yield Leak("mount", entry.target, f"{entry.fstype} {entry.source}")

    def _files(self, gone: list[Footprint], consoles: set[str]) -> Iterator[Leak]:
        for known in gone:
            path = f"{known.runtime_root}/{known.id}"
            if os.path.lexists(path):
                yield Leak("file", path, "state of the runtime")
        # As an ordinary process the agent shares /run with other agents.
        if self._is_guest:
            for path in glob.glob(_CONSOLES):
                if path not in consoles:
                    yield Leak("file", path, "console socket")


def _greenlets(reachable: Reachable) -> Iterator[Leak]:
    for found in reachable.unreached:
        at = next(iter(greenlets.stack(found.gr_frame)), "not started")
        yield Leak("greenlet", greenlets.describe(found), at)


def _cgroups(gone: list[Footprint]) -> Iterator[Leak]:
    """Yield the cgroups of deleted containers, in every hierarchy that is mounted."""
    tops = [entry.target for entry in mounts() if entry.fstype in ("cgroup", "cgroup2")]
    for known in gone:
        for top in tops:
            path = f"{top}/{known.cgroup.strip('/')}"
            if os.path.isdir(path):
                yield Leak("cgroup", path, f"of container {known.id}")


def _owner(channel: str, ids: set[str]) -> str:
    """Return the id of the container that a channel belongs to, or an empty string.

    Channels are named `<id>-stdout` or `<id>-<exec id>-stdout`, and ids may contain dashes.
    """
    return max((id for id in ids if channel.startswith(f"{id}-")), key=len, default="")
