"""The whole start-up sequence in a scratch root, with namespaces of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from kuasar_agent import log
from kuasar_agent.boot import sequence
from kuasar_agent.boot.config import TaskConfig
from kuasar_agent.boot.timeline import Timeline
from kuasar_agent.linux import syscalls
from kuasar_agent.linux.mount import MountInfo, mount, mounts
from tests.support.isolation import isolated

DIRECTORIES = ("proc", "sys", "dev", "run", "etc")
NAMESPACES = (
    syscalls.CLONE_NEWPID | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWNET
)


class Booted(NamedTuple):
    config: TaskConfig
    steps: list[str]
    mounts: dict[str, MountInfo]
    environment: dict[str, str]
    resolv_conf: str
    pid_max: str
    console: str


@pytest.fixture
def host_sysctls() -> Iterator[None]:
    """Puts back the values that belong to the whole host."""
    paths = [Path(path) for path in sequence.SYSCTLS if Path(path).exists()]
    before = [path.read_text() for path in paths]
    yield
    for path, value in zip(paths, before, strict=True):
        path.write_text(value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    for name in DIRECTORIES:
        (path / name).mkdir(parents=True)
    (path / "etc/resolv.conf").touch()
    return path


class Boot(Protocol):
    def __call__(
        self, *, read_only: bool = False, prepare: Callable[[], None] | None = None
    ) -> Booted: ...


@pytest.fixture
def boot(root: Path, enter_own_cgroup: Callable[[], None], host_sysctls: None) -> Boot:
    """Boots with `root` as the root directory; `prepare` runs first, inside the namespaces."""

    def run(*, read_only: bool = False, prepare: Callable[[], None] | None = None) -> Booted:
        output = root.parent / "console.log"
        body = partial(boot_in, root, output, enter_own_cgroup, prepare, read_only)
        return isolated(body, NAMESPACES)._replace(console=output.read_text())

    return run


def boot_in(
    root: Path,
    output: Path,
    enter_own_cgroup: Callable[[], None],
    prepare: Callable[[], None] | None,
    read_only: bool,
) -> Booted:
    enter_own_cgroup()
    mount(str(root), str(root), None, ["bind"])
    if prepare:
        prepare()
    if read_only:
        mount(None, str(root), None, ["remount", "bind", "ro"])
    console = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for fd in (1, 2):
        os.dup2(console, fd)
    log.console.attach(2)
    os.chroot(root)
    os.chdir("/")
    timeline = Timeline()
    config = sequence.boot(timeline)
    resolv_conf = Path("/etc/resolv.conf")
    return Booted(
        config,
        [step.name for step in timeline.steps],
        {entry.target: entry for entry in mounts()},
        dict(os.environ),
        resolv_conf.read_text() if resolv_conf.exists() else "absent",
        Path("/proc/sys/kernel/pid_max").read_text(),
        "",
    )


def errors(booted: Booted) -> list[str]:
    return [line for line in booted.console.splitlines() if " level=error " in line]


def test_the_system_is_set_up_in_order(boot: Boot) -> None:
    booted = boot()
    assert " ".join(booted.steps) == (
        "environment mounts config cgroups sysctls modules share dns loopback"
    )
    assert booted.config == TaskConfig()
    assert booted.environment["PATH"] == "/bin:/sbin/:/usr/bin/:/usr/sbin/"
    assert booted.environment["XDG_RUNTIME_DIR"] == "/run"


def test_the_static_mounts_are_those_of_the_contract(boot: Boot) -> None:
    found = boot().mounts
    assert {
        target: (entry.fstype, set(entry.options) - {"rw", "relatime"})
        for target, entry in found.items()
        if target in {"/proc", "/sys", "/dev", "/dev/shm", "/dev/pts", "/run"}
    } == {
        "/proc": ("proc", {"nosuid", "nodev", "noexec"}),
        "/sys": ("sysfs", {"nosuid", "nodev", "noexec"}),
        "/dev": ("devtmpfs", {"nosuid"}),
        "/dev/shm": ("tmpfs", {"nosuid", "nodev"}),
        "/dev/pts": ("devpts", {"nosuid", "noexec"}),
        "/run": ("tmpfs", {"nosuid", "nodev"}),
    }
    assert "/sys/fs/cgroup" in found


def test_a_share_that_is_absent_is_an_error_on_the_console_and_nothing_more(boot: Boot) -> None:
    booted = boot()
    (line,) = errors(booted)
    assert 'msg="share not mounted" src=boot.sequence tag=kuasar fstype=9p error="E' in line
    assert line.endswith(': /run/kuasar/state"')
    assert booted.steps[-1] == "loopback"


def with_share(root: Path) -> None:
    mount("tmpfs", str(root / "run"), "tmpfs")
    share = root / "run/kuasar/state"
    share.mkdir(parents=True)
    mount("tmpfs", str(share), "tmpfs")
    (share / "resolv.conf").write_text("nameserver 10.0.0.2\n")


@pytest.mark.parametrize("read_only", [False, True])
def test_the_pods_resolv_conf_covers_the_images(boot: Boot, root: Path, read_only: bool) -> None:
    booted = boot(read_only=read_only, prepare=lambda: with_share(root))
    assert booted.resolv_conf == "nameserver 10.0.0.2\n"
    assert "/etc/resolv.conf" in booted.mounts
    assert errors(booted) == []


def test_an_image_without_resolv_conf_gets_one(boot: Boot, root: Path) -> None:
    (root / "etc/resolv.conf").unlink()
    booted = boot(prepare=lambda: with_share(root))
    assert booted.resolv_conf == "nameserver 10.0.0.2\n"


def test_what_is_mounted_already_is_kept(boot: Boot, root: Path) -> None:
    def prepare() -> None:
        with_share(root)
        (root / "run/kept").touch()
        mount("proc", str(root / "proc"), "proc")
        mount("sysfs", str(root / "sys"), "sysfs")

    booted = boot(prepare=prepare)
    assert set(booted.mounts["/proc"].options) == {"rw", "relatime"}
    assert (booted.mounts["/run"].fstype, "nodev" in booted.mounts["/run"].options) == (
        "tmpfs",
        False,
    )
    assert errors(booted) == []


def test_missing_directories_are_made(boot: Boot, root: Path) -> None:
    for name in ("proc", "sys", "dev", "run"):
        (root / name).rmdir()
    booted = boot()
    assert {"/proc", "/sys", "/dev", "/run"} <= set(booted.mounts)


def test_a_mount_that_fails_is_named_and_the_rest_goes_on(boot: Boot, root: Path) -> None:
    (root / "run").rmdir()
    booted = boot(read_only=True)
    assert 'msg="mount failed"' in errors(booted)[0]
    assert 'error="EROFS Read-only file system: /run"' in errors(booted)[0]
    assert "/dev/pts" in booted.mounts
    assert booted.steps[-1] == "loopback"


def test_the_console_says_how_long_each_step_took(boot: Boot) -> None:
    lines = [line for line in boot().console.splitlines() if 'msg="boot step"' in line]
    assert len(lines) == 9
    assert all(" start_ms=" in line and " ms=" in line for line in lines)


def test_sysctls_are_written_where_they_exist(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    present, absent = tmp_path / "present", tmp_path / "absent"
    present.write_text("0")
    refused = "/proc/sys/kernel/ostype"
    sequence.write_sysctls({refused: "x", str(absent): "1", str(present): "1"})
    assert present.read_text() == "1"
    assert not absent.exists()
    assert f'path={refused} value=x error="' in capfd.readouterr().err


def test_pids_are_not_reused_soon(boot: Boot) -> None:
    assert boot().pid_max == "4194304\n"


def test_a_command_line_that_cannot_be_read_gives_the_defaults(tmp_path: Path) -> None:
    assert sequence.read_config(str(tmp_path / "absent")) == TaskConfig()


def test_the_command_lines_warnings_reach_the_console(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cmdline"
    path.write_text("task.sharefs_type=virtiofs task.debug=maybe\n")
    assert sequence.read_config(str(path)) == TaskConfig(sharefs_type="virtiofs")
    assert "task.debug=maybe" in capfd.readouterr().err


def test_nothing_that_serving_does_not_need_is_imported() -> None:
    code = (
        "import sys; before = set(sys.modules); import kuasar_agent.boot.sequence;"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.check_output([sys.executable, "-I", "-c", code], text=True).split()
    assert not {"logging", "dataclasses", "inspect", "subprocess", "pyroute2", "json"} & set(loaded)


def test_of_protobuf_only_the_implementation_in_c_is_imported() -> None:
    code = "import sys, kuasar_agent.agent; print('google.protobuf.text_format' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-I", "-c", code], text=True) == "False\n"
