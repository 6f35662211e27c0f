"""What is there and should not be.

    fd         nothing of the agent holds it, and it was not open when the agent began to serve
    greenlet   works on nothing that the agent still knows
    zombie     ended and was not waited for
    mount      lies in the directories of containers, and no container holds it
    cgroup     of a container that is gone
    file       the runtime's or a console's, of a container that is gone
    stream     a channel of the Streaming service that a container used which is gone

A report is of one moment: what is just being given back shows, so that who wants to be sure asks
twice.
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
    from kuasar_agent.agent import Agent

_CONSOLES = "/run/pty*"


class Leak(NamedTuple):
    """One thing that nobody answers for."""

    kind: str
    what: str
    detail: str = ""


class Leaks:
    """Compares what there is with what the agent's living parts explain."""

    def __init__(self, agent: Agent) -> None:
        """To be made when the agent serves and has opened what it keeps open."""
        self._agent = agent
        self._own_fds = procfs.open_fds()
        self._own_mounts = {(entry.mount_id, entry.target) for entry in mounts()}
        self._is_guest = os.getpid() == 1

    def report(self) -> list[Leak]:
        """Everything found now, in the order of the list above. Reads files off the hub."""
        self._agent.reaper.reap()
        living = set(self._agent.containers.live())
        gone = [known for known in self._agent.containers.footprints if known.id not in living]
        reach = Reachable([self._agent, console])
        streams = self._streams(living, {known.id for known in gone})
        found = [*self._fds(reach), *_greenlets(reach), *streams]
        consoles = {os.path.dirname(it.socket_path) for it in reach.instances(ConsoleSocket)}
        return found + off_hub(self._on_disk, gone, consoles)

    def _on_disk(self, gone: list[Footprint], consoles: set[str]) -> list[Leak]:
        return [
            *(Leak("zombie", str(pid), name) for pid, name in procfs.zombies()),
            *self._mounts(gone),
            *_cgroups(gone),
            *self._files(gone, consoles),
        ]

    def _fds(self, reach: Reachable) -> Iterator[Leak]:
        for number, target in sorted(procfs.open_fds().items()):
            if number not in reach.fds and self._own_fds.get(number) != target:
                yield Leak("fd", str(number), target)

    def _streams(self, living: set[str], gone: set[str]) -> Iterator[Leak]:
        """Channels that a process still uses whose container is gone."""
        channels, ids = self._agent.channels, living | gone
        for id, output in channels.outputs.items():
            if _owner(id, ids) in gone and output.produced and not output.released:
                yield Leak("stream", id, "output of a container that is gone")
        for id, input in channels.inputs.items():
            if _owner(id, ids) in gone and input.used and not input.released:
                yield Leak("stream", id, "input of a container that is gone")

    def _mounts(self, gone: list[Footprint]) -> Iterator[Leak]:
        held = self._agent.storages.mount_points()
        ids = {known.id for known in gone}
        for entry in mounts():
            if (entry.mount_id, entry.target) in self._own_mounts or entry.target in held:
                continue
            of_the_gone = ids.intersection(entry.target.split("/"))
            if of_the_gone or entry.target.startswith(f"{STORAGE}/"):
                yield Leak("mount", entry.target, f"{entry.fstype} {entry.source}")

    def _files(self, gone: list[Footprint], consoles: set[str]) -> Iterator[Leak]:
        for known in gone:
            path = f"{known.runtime_root}/{known.id}"
            if os.path.lexists(path):
                yield Leak("file", path, "state of the runtime")
        # On a host they may be another agent's.
        if self._is_guest:
            for path in glob.glob(_CONSOLES):
                if path not in consoles:
                    yield Leak("file", path, "console socket")


def _greenlets(reach: Reachable) -> Iterator[Leak]:
    for found in reach.unreached:
        at = next(iter(greenlets.stack(found.gr_frame)), "not started")
        yield Leak("greenlet", greenlets.describe(found), at)


def _cgroups(gone: list[Footprint]) -> Iterator[Leak]:
    """In every hierarchy that is mounted."""
    tops = [entry.target for entry in mounts() if entry.fstype in ("cgroup", "cgroup2")]
    for known in gone:
        for top in tops:
            path = f"{top}/{known.cgroup.strip('/')}"
            if os.path.isdir(path):
                yield Leak("cgroup", path, f"of container {known.id}")


def _owner(channel: str, ids: set[str]) -> str:
    """Channels are called `<id>-stdout` or `<id>-<exec id>-stdout`, and ids may hold dashes."""
    return max((id for id in ids if channel.startswith(f"{id}-")), key=len, default="")
