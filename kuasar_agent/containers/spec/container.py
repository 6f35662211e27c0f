"""Rules for the container as a whole: version, cgroup, namespaces, kernel parameters, hooks."""

from __future__ import annotations

from collections.abc import Iterator

from kuasar_agent.containers.spec.job import Job, Json, entries, keep, section
from kuasar_agent.linux import sysctls

_OLD_VERSION = "1.0.2"

# Those whose path names a file of the runtime's namespaces: startContainer's is the container's.
_HOOKS = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")


def lower_version(spec: Json, _job: Job) -> Iterator[str]:
    """Replace a version that crun does not take; no runtime makes a feature depend on it."""
    version = spec.get("ociVersion")
    if isinstance(version, str) and version.startswith("1.") and "1.0" not in version:
        spec["ociVersion"] = _OLD_VERSION
        yield f"ociVersion {version} is {_OLD_VERSION}"


def translate_cgroups_path(spec: Json, _job: Job) -> Iterator[str]:
    """Replace a cgroup in systemd's notation by the path that systemd would use."""
    linux = section(spec, "linux")
    path = linux.get("cgroupsPath")
    if isinstance(path, str) and (translated := systemd_path(path)) != path:
        linux["cgroupsPath"] = translated
        yield f"linux.cgroupsPath is {translated}"


def systemd_path(path: str) -> str:
    """Return the path for `slice:prefix:name`, or any other path as it is.

    Dashes in a slice's name are levels: `a-b.slice` is below `a.slice` (systemd.slice(5)).
    """
    parts = path.split(":")
    if len(parts) != 3 or "/" in path:
        return path
    parent, prefix, name = parts
    words = [word for word in parent.removesuffix(".slice").split("-") if word]
    levels = ["-".join(words[: count + 1]) + ".slice" for count in range(len(words))]
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope".removeprefix("-")
    return "/" + "/".join([*levels, unit])


def remove_host_network(spec: Json, job: Job) -> Iterator[str]:
    """Remove a network namespace of the host: the pod's network is the guest's own."""

    def present(namespace: Json) -> bool:
        path = namespace.get("path")
        if namespace.get("type") != "network" or not isinstance(path, str) or not path:
            return True
        return job.guest.exists(path)

    for gone in keep(spec, ("linux", "namespaces"), present):
        yield f"linux.namespaces without network {gone['path']}"


def add_cgroup_namespace(spec: Json, job: Job) -> Iterator[str]:
    """Add a cgroup namespace on v2, so that the container sees its own limits."""
    if job.guest.cgroup != 2 or not job.guest.cgroup_namespaces or _has(spec, "cgroup"):
        return
    namespaces = section(spec, "linux").get("namespaces")
    if isinstance(namespaces, list):
        namespaces.append({"type": "cgroup"})
        yield "linux.namespaces with cgroup"


def move_sysctls(spec: Json, job: Job) -> Iterator[str]:
    """Move kernel parameters out that belong to no namespace in the container's list.

    Those of a namespace in the list, new or joined, are the runtime's to write from inside it.
    """
    values = section(spec, "linux", "sysctl")
    moved = {
        key: value
        for key, value in values.items()
        if isinstance(value, str) and not _has(spec, sysctls.namespace(key))
    }
    for key, value in moved.items():
        del values[key]
        job.sysctls[key] = value
        yield f"linux.sysctl {key} is written in the guest"


def move_hostname(spec: Json, _job: Job) -> Iterator[str]:
    """Move kernel.hostname to the field for it, which the runtimes demand."""
    values = section(spec, "linux", "sysctl")
    if "kernel.hostname" in values and _has(spec, "uts"):
        name = values.pop("kernel.hostname")
        spec.setdefault("hostname", name)
        yield f"linux.sysctl kernel.hostname is hostname {spec['hostname']}"


def remove_hooks(spec: Json, job: Job) -> Iterator[str]:
    """Remove hooks whose program the guest does not have."""

    def present(hook: Json) -> bool:
        path = hook.get("path")
        return not isinstance(path, str) or job.guest.exists(path)

    for stage in _HOOKS:
        for gone in keep(spec, ("hooks", stage), present):
            yield f"hooks.{stage} without {gone['path']}"


def remove_architectures(spec: Json, job: Job) -> Iterator[str]:
    """Remove architectures of a seccomp profile that a CPU of the guest cannot run."""
    seccomp = section(spec, "linux", "seccomp")
    names = seccomp.get("architectures")
    if not isinstance(names, list):
        return
    gone = [name for name in names if name not in job.guest.architectures]
    if gone and job.guest.architectures:
        seccomp["architectures"] = [name for name in names if name not in gone]
        yield f"linux.seccomp.architectures without {', '.join(map(str, gone))}"


def _has(spec: Json, kind: str) -> bool:
    return any(each.get("type") == kind for each in entries(spec, "linux", "namespaces"))
