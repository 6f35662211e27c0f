"""Option words of mount(8) into the flags and data of mount(2)."""

from __future__ import annotations

import pytest

from kuasar_agent.errors import InvalidArgument
from kuasar_agent.linux import mount as m
from kuasar_agent.linux.mount import MountOptions, parse_options

SETTING = {
    "bind": m.MS_BIND,
    "dirsync": m.MS_DIRSYNC,
    "mand": m.MS_MANDLOCK,
    "noatime": m.MS_NOATIME,
    "nodev": m.MS_NODEV,
    "nodiratime": m.MS_NODIRATIME,
    "noexec": m.MS_NOEXEC,
    "nosuid": m.MS_NOSUID,
    "rbind": m.MS_BIND | m.MS_REC,
    "relatime": m.MS_RELATIME,
    "remount": m.MS_REMOUNT,
    "ro": m.MS_RDONLY,
    "strictatime": m.MS_STRICTATIME,
    "sync": m.MS_SYNCHRONOUS,
}
CLEARING = {
    "async": "sync",
    "atime": "noatime",
    "dev": "nodev",
    "diratime": "nodiratime",
    "exec": "noexec",
    "nomand": "mand",
    "norelatime": "relatime",
    "nostrictatime": "strictatime",
    "rw": "ro",
    "suid": "nosuid",
}
PROPAGATION = {
    "private": m.MS_PRIVATE,
    "rprivate": m.MS_PRIVATE | m.MS_REC,
    "shared": m.MS_SHARED,
    "rshared": m.MS_SHARED | m.MS_REC,
    "slave": m.MS_SLAVE,
    "rslave": m.MS_SLAVE | m.MS_REC,
    "unbindable": m.MS_UNBINDABLE,
    "runbindable": m.MS_UNBINDABLE | m.MS_REC,
}


@pytest.mark.parametrize(("word", "flags"), SETTING.items())
def test_a_setting_word_sets_its_flag(word: str, flags: int) -> None:
    assert parse_options([word]) == MountOptions(flags=flags)


@pytest.mark.parametrize(("word", "opposite"), CLEARING.items())
def test_a_clearing_word_clears_what_came_before_it(word: str, opposite: str) -> None:
    assert parse_options([word]) == MountOptions()
    assert parse_options([opposite, word]) == MountOptions()
    assert parse_options([word, opposite]) == MountOptions(flags=SETTING[opposite])


@pytest.mark.parametrize(("word", "flags"), PROPAGATION.items())
def test_a_propagation_word_leaves_the_other_flags_alone(word: str, flags: int) -> None:
    assert parse_options(["ro", word]) == MountOptions(flags=m.MS_RDONLY, propagation=flags)


def test_defaults_changes_nothing() -> None:
    assert parse_options(["ro", "defaults"]) == MountOptions(flags=m.MS_RDONLY)


def test_rbind_does_not_make_propagation_recursive() -> None:
    options = parse_options(["rbind", "private"])
    assert options.propagation == m.MS_PRIVATE
    assert options.flags == m.MS_BIND | m.MS_REC


def test_the_last_propagation_word_wins() -> None:
    assert parse_options(["rshared", "slave"]).propagation == m.MS_SLAVE


@pytest.mark.parametrize(
    "word", ["size=64k", "silent", "loud", "iversion", "lazytime", "nosymfollow", "Ro", "ro "]
)
def test_any_other_word_is_data(word: str) -> None:
    assert parse_options([word]) == MountOptions(data=word)


def test_data_words_are_joined_in_order_and_empty_ones_dropped() -> None:
    assert parse_options(["b", "", "ro", "a=1,2"]) == MountOptions(m.MS_RDONLY, 0, "b,a=1,2")


def test_data_up_to_a_page_less_its_nul_is_taken() -> None:
    assert len(parse_options(["x" * 4095]).data) == 4095


@pytest.mark.parametrize("words", [["x" * 4096], ["x" * 2048, "y" * 2047], ["é" * 2048]])
def test_data_that_the_kernel_would_cut_is_refused(words: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="mount option is too long: 4096 bytes"):
        parse_options(words)
