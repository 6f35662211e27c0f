"""Fields that say nothing, as a host writes them that fills in every field of its own types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kuasar_agent.containers.spec.job import Job, Json, section

# Strings that Go's types omit when they are empty, and that some runtime acts on when they are not
# absent. An empty array means the same as an absent one to the runtimes: those stay.
_STRINGS = (
    "hostname",
    "domainname",
    "process.apparmorProfile",
    "process.commandLine",
    "process.selinuxLabel",
    "process.user.username",
    "mounts[].source",
    "mounts[].type",
    "linux.cgroupsPath",
    "linux.intelRdt.closID",
    "linux.intelRdt.l3CacheSchema",
    "linux.intelRdt.memBwSchema",
    "linux.mountLabel",
    "linux.namespaces[].path",
    "linux.resources.cpu.cpus",
    "linux.resources.cpu.mems",
    "linux.rootfsPropagation",
    "linux.seccomp.listenerMetadata",
    "linux.seccomp.listenerPath",
)


def remove_empty(spec: Json, _job: Job) -> Iterator[str]:
    """Remove nulls everywhere, and the empty strings of the table above."""
    gone = [*_remove_nulls(spec, "")]
    for path in _STRINGS:
        gone += _remove_string(spec, path)
    if gone:
        yield f"without value: {', '.join(sorted(set(gone)))}"


def remove_umask(spec: Json, _job: Job) -> Iterator[str]:
    """Remove a umask of 0 beside a user name, which only Kuasar's types write together."""
    user = section(spec, "process", "user")
    if user.get("umask") == 0 and "username" in user:
        del user["umask"]
        yield "process.user.umask 0 removed"


def _remove_nulls(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _remove_nulls(each, f"{path}[]")
    elif isinstance(value, dict):
        for key, member in list(value.items()):
            inner = f"{path}.{key}" if path else key
            if member is None:
                del value[key]
                yield inner
            else:
                yield from _remove_nulls(member, inner)


def _remove_string(value: Any, path: str) -> Iterator[str]:
    holders = [value]
    *parents, last = path.split(".")
    for name in parents:
        found = [holder.get(name.removesuffix("[]")) for holder in holders]
        if name.endswith("[]"):
            found = [each for array in found if isinstance(array, list) for each in array]
        holders = [each for each in found if isinstance(each, dict)]
    for holder in holders:
        if holder.get(last) == "":
            del holder[last]
            yield path
