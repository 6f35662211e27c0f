"""Start-up from the bare kernel to a guest that can serve.

    environment → mounts → config → cgroups → sysctls → modules → share → dns → loopback

The command line is read as soon as /proc is mounted: `task.cgroup` and `task.sharefs_type`
determine later steps. A failed step is logged and the agent serves without it, so that the host's
Check is answered and the fault can be examined with ExecVMProcess. Without the share, Create
reports that the bundle is missing.
"""

import errno
import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from kuasar_agent import log as logs
from kuasar_agent.boot import standard_fds
from kuasar_agent.boot.config import TaskConfig, parse_cmdline
from kuasar_agent.boot.timeline import Timeline
from kuasar_agent.directories import SHARE
from kuasar_agent.linux import cgroup, modules, netif
from kuasar_agent.linux.files import read_text, write_text
from kuasar_agent.linux.mount import mount

log = logs.get_logger(__name__)

T = TypeVar("T")

ENVIRONMENT = {"PATH": "/bin:/sbin/:/usr/bin/:/usr/sbin/", "XDG_RUNTIME_DIR": "/run"}

SHARE_TAG = "kuasar"  # contract: Kuasar's sandboxer

_SHARE_OPTIONS = {
    "9p": ["nodev", "trans=virtio,version=9p2000.L"],
    "virtiofs": ["relatime", "nodev", "sync", "dirsync"],
}


class StaticMount(NamedTuple):
    """A mount that every guest has."""

    fstype: str
    source: str
    target: str
    options: tuple[str, ...]


STATIC_MOUNTS = (
    StaticMount("proc", "proc", "/proc", ("nosuid", "nodev", "noexec")),
    StaticMount("sysfs", "sysfs", "/sys", ("nosuid", "nodev", "noexec")),
    StaticMount("devtmpfs", "dev", "/dev", ("nosuid",)),
    StaticMount("tmpfs", "tmpfs", "/dev/shm", ("nosuid", "nodev")),
    StaticMount("devpts", "devpts", "/dev/pts", ("nosuid", "noexec")),
    StaticMount("tmpfs", "tmpfs", "/run", ("nosuid", "nodev")),
)

SYSCTLS = {
    "/sys/fs/cgroup/memory/memory.use_hierarchy": "1",
    "/proc/sys/vm/overcommit_memory": "1",
    "/proc/sys/net/ipv4/vs/expire_nodest_conn": "1",
    # The kernel's maximum: the number of an ended process is not reused soon, so that a stale pid
    # does not name another process.
    "/proc/sys/kernel/pid_max": "4194304",
    # containerd 2.x gives each pod these two (enable_unprivileged_ports, enable_unprivileged_icmp):
    # programs of any user may bind port 80 and ping. Kuasar's host does not send them. Those of
    # SetupSandbox are written later and override them.
    "/proc/sys/net/ipv4/ip_unprivileged_port_start": "0",
    "/proc/sys/net/ipv4/ping_group_range": "0 2147483647",
}


def boot(timeline: Timeline) -> TaskConfig:
    """Run every step and return the settings; never raise."""
    with timeline.step("environment"):
        placeholders: list[int] = _attempt("environment", prepare_process, [])
    with timeline.step("mounts"):
        failures: list[OSError] = _attempt("mounts", mount_static, [])
        _attempt("console", lambda: standard_fds.attach_console(placeholders), None)
        for failure in failures:  # logged now: before, there may have been no console
            log.error("mount failed", error=failure)
    with timeline.step("config"):
        config = _attempt("config", read_config, TaskConfig())
        logs.set_level(config.log_level)
        logs.set_format(config.log_format)

    steps: dict[str, Callable[[], object]] = {
        "cgroups": lambda: cgroup.set_up(config.cgroup),
        "sysctls": write_sysctls,
        "modules": lambda: load_modules(config.sharefs_type),
        "share": lambda: mount_share(config.sharefs_type),
        "dns": bind_resolv_conf,
        "loopback": lambda: netif.set_up("lo"),
    }
    for name, action in steps.items():
        with timeline.step(name):
            _attempt(name, action, None)
    return config


def prepare_process() -> list[int]:
    """Set the environment; return the standard descriptors that got a placeholder."""
    os.environ.update(ENVIRONMENT)
    return standard_fds.reserve_standard_fds()


def mount_static(mounts: tuple[StaticMount, ...] = STATIC_MOUNTS) -> list[OSError]:
    """Make the mounts that do not exist yet; return the errors of those that failed."""
    failures = []
    for fstype, source, target, options in mounts:
        try:
            os.makedirs(target, exist_ok=True)
            if not os.path.ismount(target):
                mount(source, target, fstype, options)
        except OSError as error:
            if error.errno != errno.EBUSY:
                failures.append(error)
    return failures


def read_config(path: str = "/proc/cmdline") -> TaskConfig:
    """Return the settings of the kernel command line; the defaults if it cannot be read."""
    try:
        text = read_text(path)
    except OSError as error:
        log.error("kernel command line not read, defaults are used", error=error)
        return TaskConfig()
    config, warnings = parse_cmdline(text)
    for warning in warnings:
        log.warning(warning)
    return config


def write_sysctls(sysctls: dict[str, str] = SYSCTLS) -> None:
    """Write each value whose file exists; log a failure."""
    for path, value in sysctls.items():
        try:
            write_text(path, value)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("sysctl not written", path=path, value=value, error=error)


def load_modules(sharefs_type: str) -> None:
    """Load the modules that every guest needs, then those of its type of share."""
    modules.load_list(modules.LOAD)
    modules.load_list(sharefs_type)


def mount_share(fstype: str, target: str = SHARE) -> None:
    """Mount the host's directory unless it is mounted already; log a failure."""
    os.makedirs(target, exist_ok=True)
    if os.path.ismount(target):
        return
    try:
        mount(SHARE_TAG, target, fstype, _SHARE_OPTIONS[fstype])
    except OSError as error:
        if error.errno != errno.EBUSY:
            log.error("share not mounted", tag=SHARE_TAG, fstype=fstype, error=error)


def bind_resolv_conf(
    source: str = f"{SHARE}/resolv.conf", target: str = "/etc/resolv.conf"
) -> None:
    """Bind-mount the pod's resolv.conf over the image's; log a missing source."""
    if not os.path.exists(source):
        log.warning("the host shares no resolv.conf", path=source)
        return
    if not os.path.exists(target):
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    if not os.path.samefile(source, target):
        mount(source, target, "bind", ["bind"])


def _attempt(name: str, action: Callable[[], T], otherwise: T) -> T:
    try:
        return action()
    except OSError as error:
        log.error("boot step failed", step=name, error=error)
    except Exception:
        log.exception("boot step failed", step=name)
    return otherwise
