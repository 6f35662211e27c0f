"""Mounts as the kernel reports them, each test in a mount namespace of its own."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kuasar_agent.linux import syscalls
from kuasar_agent.linux.mount import (
    MS_REMOUNT,
    MountInfo,
    mount,
    mounts,
    unmount,
)
from tests.support.isolation import is_mounted, isolated


def at(target: Path) -> list[MountInfo]:
    return [entry for entry in mounts() if entry.target == str(target)]


def only(target: Path) -> MountInfo:
    (entry,) = at(target)
    return entry


def tmpfs(target: Path, *words: str) -> Path:
    target.mkdir(exist_ok=True)
    mount("tmpfs", str(target), "tmpfs", words)
    return target


DEFAULT = {"rw", "relatime"}


@pytest.mark.parametrize(
    ("words", "options", "super_options"),
    [
        ([], DEFAULT, {"rw"}),
        (["defaults"], DEFAULT, {"rw"}),
        (["rw"], DEFAULT, {"rw"}),
        (["ro"], {"ro", "relatime"}, {"ro"}),
        (["ro", "rw"], DEFAULT, {"rw"}),
        (["nosuid"], DEFAULT | {"nosuid"}, {"rw"}),
        (["nosuid", "suid"], DEFAULT, {"rw"}),
        (["nodev"], DEFAULT | {"nodev"}, {"rw"}),
        (["nodev", "dev"], DEFAULT, {"rw"}),
        (["noexec"], DEFAULT | {"noexec"}, {"rw"}),
        (["noexec", "exec"], DEFAULT, {"rw"}),
        (["noatime"], {"rw", "noatime"}, {"rw"}),
        (["noatime", "atime"], DEFAULT, {"rw"}),
        (["nodiratime"], DEFAULT | {"nodiratime"}, {"rw"}),
        (["nodiratime", "diratime"], DEFAULT, {"rw"}),
        (["relatime"], DEFAULT, {"rw"}),
        (["relatime", "norelatime"], DEFAULT, {"rw"}),
        (["strictatime"], {"rw"}, {"rw"}),
        (["strictatime", "nostrictatime"], DEFAULT, {"rw"}),
        (["sync"], DEFAULT, {"rw", "sync"}),
        (["sync", "async"], DEFAULT, {"rw"}),
        (["dirsync"], DEFAULT, {"rw", "dirsync"}),
        (["mand", "nomand"], DEFAULT, {"rw"}),
        (["size=64k", "nosuid", "mode=711"], DEFAULT | {"nosuid"}, {"rw", "size=64k", "mode=711"}),
    ],
)
def test_option_words_show_in_mountinfo(
    tmp_path: Path, words: list[str], options: set[str], super_options: set[str]
) -> None:
    entry = isolated(lambda: (tmpfs(tmp_path, *words), only(tmp_path))[1])
    assert set(entry.options) == options
    # the kernel adds options of its own, such as inode64
    assert super_options <= set(entry.super_options)
    assert {"sync", "dirsync", "ro"} & set(entry.super_options) == super_options - {
        "rw",
        "size=64k",
        "mode=711",
    }


@pytest.mark.parametrize(
    ("word", "before", "after"),
    [
        ("shared", "private", "shared"),
        ("rshared", "private", "shared"),
        ("private", "shared", ""),
        ("rprivate", "shared", ""),
        ("slave", "shared", "master"),
        ("rslave", "shared", "master"),
        ("unbindable", "private", "unbindable"),
        ("runbindable", "private", "unbindable"),
    ],
)
def test_propagation_alone_changes_an_existing_mount(
    tmp_path: Path, word: str, before: str, after: str
) -> None:
    def body() -> tuple[str, int]:
        outer = tmpfs(tmp_path / "outer", before)
        inner = tmpfs(outer / "inner", before)
        if before == "shared":  # a slave needs a master
            peer = tmp_path / "peer"
            peer.mkdir()
            mount(str(outer), str(peer), None, ["rbind"])
        mount(None, str(outer), None, [word])
        assert kind(inner) == (after if word.startswith("r") else before.removeprefix("private"))
        return kind(outer), len(at(outer))

    def kind(target: Path) -> str:
        return ",".join(field.partition(":")[0] for field in only(target).propagation)

    assert isolated(body) == (after, 1)


def test_rbind_with_a_plain_propagation_word_leaves_submounts_alone(tmp_path: Path) -> None:
    def body() -> tuple[bool, bool]:
        source = tmpfs(tmp_path / "source", "shared")
        tmpfs(source / "sub", "shared")
        target = tmp_path / "target"
        target.mkdir()
        mount(str(source), str(target), None, ["rbind", "private"])
        return bool(only(target).propagation), bool(only(target / "sub").propagation)

    assert isolated(body) == (False, True)


def test_bind_takes_one_mount_and_rbind_the_tree(tmp_path: Path) -> None:
    def body() -> tuple[int, int]:
        source = tmpfs(tmp_path / "source")
        tmpfs(source / "sub")
        for name in ("bind", "rbind"):
            (tmp_path / name).mkdir()
            mount(str(source), str(tmp_path / name), None, [name])
        return len(at(tmp_path / "bind" / "sub")), len(at(tmp_path / "rbind" / "sub"))

    assert isolated(body) == (0, 1)


@pytest.mark.parametrize("fstype", ["bind", None])
def test_a_read_only_bind_is_read_only_and_its_source_is_not(
    tmp_path: Path, fstype: str | None
) -> None:
    def body() -> tuple[int | None, bool]:
        source = tmpfs(tmp_path / "source")
        target = tmp_path / "target"
        target.mkdir()
        mount(str(source), str(target), fstype, ["bind", "ro", "nosuid"])
        assert {"ro", "nosuid"} <= set(only(target).options)
        (source / "file").touch()
        return errno_of(lambda: (target / "other").touch()), (target / "file").exists()

    assert isolated(body) == (errno.EROFS, True)


def test_a_file_is_bound_over_a_file(tmp_path: Path) -> None:
    def body() -> str:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_text("new")
        target.write_text("old")
        mount(str(source), str(target), "bind", ["bind"])
        return target.read_text()

    assert isolated(body) == "new"


@pytest.mark.parametrize(
    "words", [["remount", "ro"], ["remount", "ro", "size=32k"], ["remount", "bind", "ro"]]
)
def test_remount_changes_the_mount_in_place(tmp_path: Path, words: list[str]) -> None:
    def body() -> MountInfo:
        tmpfs(tmp_path, "size=64k")
        mount("tmpfs", str(tmp_path), "tmpfs", words)
        return only(tmp_path)

    entry = isolated(body)
    assert "ro" in entry.options
    assert ("size=32k" in entry.super_options) == ("size=32k" in words)


def test_nothing_stays_mounted_when_a_later_step_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A remount that the kernel itself refuses takes a user namespace, and a chroot gets none.
    def refuse_remounts(*args: Any) -> None:
        if args[3] & MS_REMOUNT:
            raise PermissionError(errno.EPERM, "refused", args[1])
        really_mount(*args)

    def body() -> tuple[int | None, bool]:
        source = tmpfs(tmp_path / "source", "nodev")
        target = tmp_path / "target"
        target.mkdir()
        monkeypatch.setattr(syscalls, "mount", refuse_remounts)
        number = errno_of(lambda: mount(str(source), str(target), None, ["bind", "ro"]))
        return number, is_mounted(str(target))

    really_mount = syscalls.mount
    assert isolated(body) == (errno.EPERM, False)


def test_an_error_carries_errno_and_target(tmp_path: Path) -> None:
    target = str(tmp_path / "absent")
    with pytest.raises(FileNotFoundError) as caught:
        isolated_here(lambda: mount("tmpfs", target, "tmpfs"))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, target)


def test_a_nul_in_a_path_is_refused_not_cut(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="embedded NUL"):
        mount("tmpfs", f"{tmp_path}\0/sub", "tmpfs")


def test_unmount_removes_the_topmost_mount_only(tmp_path: Path) -> None:
    def body() -> list[bool]:
        tmpfs(tmp_path)
        tmpfs(tmp_path)
        return [unmount(str(tmp_path)) for _ in range(3)]

    assert isolated(body) == [True, True, False]


def test_unmounting_what_does_not_exist_is_no_error(tmp_path: Path) -> None:
    assert unmount(str(tmp_path / "absent")) is False


def test_a_busy_mount_is_detached(tmp_path: Path) -> None:
    def body() -> tuple[bool, bool]:
        tmpfs(tmp_path)
        with (tmp_path / "open").open("w"):
            return unmount(str(tmp_path)), is_mounted(str(tmp_path))

    assert isolated(body) == (True, False)


@pytest.mark.parametrize(
    "name", ["with space", "tab\t", "new\nline", "back\\slash", "ünï", "#hash"]
)
def test_a_target_of_any_name_is_found(tmp_path: Path, name: str) -> None:
    assert isolated(lambda: is_mounted(str(tmpfs(tmp_path / name))))


def errno_of(action: Callable[[], object]) -> int | None:
    try:
        action()
    except OSError as error:
        return error.errno
    return None


def isolated_here(action: Callable[[], object]) -> None:
    """Let an OSError of `action` out of the child with its parts."""

    def body() -> OSError | None:
        try:
            action()
        except OSError as error:
            return error
        return None

    error = isolated(body)
    if error is not None:
        raise error
