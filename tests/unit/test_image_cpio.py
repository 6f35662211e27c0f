"""The archive that the kernel unpacks (newc, buffer-format.rst)."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image import cpio
from image.errors import BuildError
from image.tree import Node, Tree


def a_tree() -> Tree:
    tree = Tree()
    tree.file("etc/hosts", b"127.0.0.1\n", mode=0o600)
    tree.directory("tmp", mode=0o1777)
    tree.link("bin", "usr/bin")
    tree.add("dev/console", Node(stat.S_IFCHR | 0o600, device=(5, 1)))
    return tree


def test_an_entry_is_written_as_the_kernel_documents_it() -> None:
    tree = Tree()
    tree.file("a", b"xyz")
    assert (
        cpio.archive(tree)
        == (
            b"070701"
            b"00000001"  # inode
            b"000081A4"  # regular file, 0644
            b"00000000" + b"00000000"  # owner
            b"00000001"  # links
            b"00000000"  # time
            b"00000003"  # size
            b"00000000" + b"00000000"  # device the file is on
            b"00000000" + b"00000000"  # device the node stands for
            b"00000002"  # length of the name with its NUL
            b"00000000"  # checksum
            b"a\0"
            b"xyz\0"
            b"070701" + b"00000000" * 4 + b"00000001" + b"00000000" * 6 + b"0000000B" + b"00000000"
            b"TRAILER!!!\0\0\0\0"
        )
    )


def test_every_part_starts_at_a_multiple_of_four() -> None:
    data = cpio.archive(a_tree())
    assert len(data) % 4 == 0
    offset = data.find(b"070701")
    while offset >= 0:
        assert offset % 4 == 0
        offset = data.find(b"070701", offset + 1)


def test_the_order_of_building_a_tree_does_not_show() -> None:
    forwards = a_tree()
    backwards = Tree(dict(reversed(forwards.nodes.items())))
    assert cpio.archive(backwards) == cpio.archive(forwards)


def test_a_directory_comes_before_what_is_in_it() -> None:
    tree = Tree()
    for path in ("a/b", "a-b", "a.b", "a/a/a"):
        tree.file(path, b"")
    order = list(cpio.parse(cpio.archive(tree)).nodes)
    for path in order:
        parent = path.rpartition("/")[0]
        assert not parent or order.index(parent) < order.index(path)


def test_archives_one_after_the_other_are_one_tree() -> None:
    second = Tree()
    second.file("etc/group", b"root:x:0:\n")
    joined = cpio.parse(cpio.archive(a_tree()) + b"\0" * 512 + cpio.archive(second))
    assert joined["etc/group"].data == b"root:x:0:\n"
    assert joined["etc/hosts"].data == b"127.0.0.1\n"


names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1
).filter(lambda name: name not in (".", ".."))


@given(st.dictionaries(names, st.binary(max_size=9)))
def test_what_was_written_is_read_back(files: dict[str, bytes]) -> None:
    tree = a_tree()
    for name, data in files.items():
        tree.file(f"below/{name}", data)
    assert cpio.parse(cpio.archive(tree)).nodes == tree.nodes


@given(st.integers(min_value=0), st.binary(min_size=1, max_size=12))
def test_a_damaged_archive_is_an_error_of_the_build_or_another_tree(at: int, harm: bytes) -> None:
    data = bytearray(cpio.archive(a_tree()))
    at %= len(data)
    data[at : at + len(harm)] = harm
    try:
        cpio.parse(bytes(data))
    except BuildError:
        pass


@pytest.mark.parametrize("keep", [50, 110, 125])
def test_a_cut_archive_is_an_error(keep: int) -> None:
    with pytest.raises(BuildError):
        cpio.parse(cpio.archive(a_tree())[:keep])
