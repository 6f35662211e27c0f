"""Rules for a process: a container's first one and those of execs."""

from __future__ import annotations

from collections.abc import Iterator

from kuasar_agent.containers.spec.job import Job, Json, entries, section
from kuasar_agent.containers.spec.resources import narrow


def set_terminal(spec: Json, job: Job) -> Iterator[str]:
    """Set process.terminal, which decides whether the runtime makes a terminal."""
    process = spec.get("process")
    if isinstance(process, dict) and bool(process.get("terminal")) != job.terminal:
        process["terminal"] = job.terminal
        yield f"process.terminal is {str(job.terminal).lower()}"


def set_console_size(spec: Json, job: Job) -> Iterator[str]:
    """Set process.consoleSize to the size that the host has set before the start."""
    if job.size is None or not job.terminal:
        return
    width, height = job.size
    size = {"height": height, "width": width}
    process = section(spec, "process")
    if process.get("consoleSize") != size:
        process["consoleSize"] = size
        yield f"process.consoleSize is {width}x{height}"


def remove_apparmor(spec: Json, job: Job) -> Iterator[str]:
    """Remove an AppArmor profile that the guest's kernel does not have."""
    process = section(spec, "process")
    profile = process.get("apparmorProfile")
    if isinstance(profile, str) and profile not in job.guest.apparmor:
        yield f"process.apparmorProfile {process.pop('apparmorProfile')} removed"


def remove_selinux(spec: Json, job: Job) -> Iterator[str]:
    """Remove SELinux labels where the kernel has no SELinux."""
    if job.guest.selinux:
        return
    for name, holder, key in (
        ("process.selinuxLabel", section(spec, "process"), "selinuxLabel"),
        ("linux.mountLabel", section(spec, "linux"), "mountLabel"),
    ):
        if key in holder:
            yield f"{name} {holder.pop(key)} removed"


def limit_open_files(spec: Json, job: Job) -> Iterator[str]:
    """Lower RLIMIT_NOFILE to the kernel's maximum, beyond which setrlimit(2) fails."""
    most = job.guest.open_files
    for limit in entries(spec, "process", "rlimits"):
        for key in ("soft", "hard"):
            asked = limit.get(key)
            if limit.get("type") == "RLIMIT_NOFILE" and isinstance(asked, int) and asked > most:
                limit[key] = most
                yield f"process.rlimits: {key} RLIMIT_NOFILE {asked} is {most}"


def narrow_affinity(spec: Json, job: Job) -> Iterator[str]:
    """Narrow an exec's CPU affinity to the guest's CPUs."""
    affinity = section(spec, "process", "execCPUAffinity")
    for key in ("initial", "final"):
        yield from narrow(affinity, key, job.guest.cpus, f"process.execCPUAffinity.{key}")
