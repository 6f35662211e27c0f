"""The root file system in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from image import userland
from image.contents import Omission
from image.errors import BuildError
from image.tree import Tree, merged


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/bin/bash", "usr/bin/bash"),
        ("./lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
        ("usr/sbin/init", "usr/sbin/init"),
        ("lib", "lib"),
        ("etc//hosts", "etc/hosts"),
    ],
)
def test_bin_sbin_and_lib_are_places_in_usr(path: str, place: str) -> None:
    assert merged(path) == place


def test_a_path_cannot_climb() -> None:
    with pytest.raises(BuildError, match=r"\.\."):
        merged("usr/../../etc/passwd")


def test_a_file_brings_its_directories() -> None:
    tree = Tree()
    tree.file("lib/a/b", b"")
    assert tree["usr/lib/a"].is_directory
    assert tree["usr"].is_directory


def test_two_packages_may_bring_the_same_file_but_not_two_versions_of_it() -> None:
    tree = Tree()
    tree.file("etc/protocols", b"ip\n", group="one")
    tree.file("etc/protocols", b"ip\n", group="two")
    with pytest.raises(BuildError, match="/etc/protocols"):
        tree.file("etc/protocols", b"tcp\n")


def test_a_pattern_for_a_directory_covers_what_is_in_it() -> None:
    tree = Tree()
    tree.file("a/tests/b/c.py", b"")
    tree.file("a/tests_of_mine.py", b"")
    assert tree.matching("*/tests") == ["a/tests", "a/tests/b", "a/tests/b/c.py"]


def test_sizes_are_counted_per_group() -> None:
    tree = Tree()
    tree.file("a", b"12", group="x")
    tree.file("b", b"345", group="x")
    tree.file("c", b"6", group="y")
    tree.link("d", "nowhere", group="y")
    assert tree.sizes() == {"x": 5, "y": 1}


def test_on_disk_it_has_the_modes_whatever_the_umask(tmp_path: Path) -> None:
    tree = Tree()
    tree.file("sbin/init", b"#!\n", mode=0o755)
    tree.directory("tmp", mode=0o1777)
    tree.link("init", "/sbin/init")
    tree.write_to(tmp_path)
    assert (tmp_path / "usr/sbin/init").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "init").readlink() == Path("/sbin/init")


def small() -> Tree:
    tree = Tree()
    for path in ("a/x.py", "a/b/y.py", "a/b/z.py", "c.py"):
        tree.file(path, b"1234")
    return tree


def test_what_an_omission_excepts_stays_with_its_directories(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    omission = Omission("why", ("a",), but=("a/b/y.py",))
    monkeypatch.setattr(userland, "OMISSIONS", (omission,))
    tree = small()
    assert userland.omit(tree) == {"why": 8}
    assert sorted(tree.nodes) == ["a", "a/b", "a/b/y.py", "c.py"]


@pytest.mark.parametrize(
    "omission", [Omission("why", ("d",)), Omission("why", ("a",), but=("a/d",))]
)
def test_an_omission_that_covers_nothing_no_longer_fits(
    monkeypatch: pytest.MonkeyPatch, omission: Omission
) -> None:
    monkeypatch.setattr(userland, "OMISSIONS", (omission,))
    with pytest.raises(BuildError, match=r"match nothing: (d|a/d)$"):
        userland.omit(small())
