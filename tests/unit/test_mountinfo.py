"""Reading /proc/<pid>/mountinfo."""

from __future__ import annotations

from kuasar_agent.linux.mount import MountInfo, mounts, parse_mountinfo


def test_a_line_gives_every_field() -> None:
    line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue"
    assert parse_mountinfo(line + "\n") == [
        MountInfo(
            mount_id=36,
            parent_id=35,
            device="98:0",
            root="/mnt1",
            target="/mnt2",
            options=("rw", "noatime"),
            propagation=("master:1", "shared:2"),
            fstype="ext3",
            source="/dev/root",
            super_options=("rw", "errors=continue"),
        )
    ]


def test_a_private_mount_has_no_optional_fields() -> None:
    (entry,) = parse_mountinfo("1 0 0:1 / / rw - rootfs none rw")
    assert entry.propagation == ()


def test_octal_escapes_are_undone_once() -> None:
    (entry,) = parse_mountinfo(
        r"2 1 0:5 /a\040b /c\011d\012e\134040 rw - tmpfs with\043hash rw,x=\054"
    )
    assert entry.root == "/a b"
    assert entry.target == "/c\td\ne\\040"
    assert entry.source == "with#hash"


def test_an_empty_source_keeps_its_place() -> None:
    (entry,) = parse_mountinfo("2 1 0:5 / /x rw - tmpfs  rw,size=1k")
    assert (entry.source, entry.super_options) == ("", ("rw", "size=1k"))


def test_other_separators_of_unicode_do_not_end_a_line() -> None:
    (entry,) = parse_mountinfo("2 1 0:5 / /a\x0b\u2028b rw - tmpfs t rw\n")
    assert entry.target == "/a\x0b\u2028b"


def test_lines_of_another_shape_are_left_out() -> None:
    assert parse_mountinfo("\nnonsense\n1 2 3 - x y z\n") == []


def test_the_running_kernel_is_understood() -> None:
    proc = [entry for entry in mounts() if entry.target == "/proc"]
    assert [entry.fstype for entry in proc] == ["proc"]
