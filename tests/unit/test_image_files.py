"""What is half-written or damaged is never taken for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from image.errors import BuildError
from image.files import Cache, replacing, run


class Builder:
    """Fills a cache entry and counts how often it had to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, work: Path) -> None:
        self.calls += 1
        (work / "result").write_text("whole")


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    build = Builder()
    for _ in range(2):
        entry = Cache(tmp_path).entry("kind", "key", build)
        assert (entry / "result").read_text() == "whole"
    assert build.calls == 1


def test_a_build_that_fails_leaves_no_entry(tmp_path: Path) -> None:
    def fail(work: Path) -> None:
        (work / "result").write_text("ha")
        raise BuildError("no space")

    with pytest.raises(BuildError):
        Cache(tmp_path).entry("kind", "key", fail)
    assert list((tmp_path / "kind").iterdir()) == []
    build = Builder()
    Cache(tmp_path).entry("kind", "key", build)
    assert build.calls == 1


@pytest.mark.parametrize("harm", ["truncate", "remove"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, harm: str) -> None:
    build = Builder()
    result = Cache(tmp_path).entry("kind", "key", build) / "result"
    if harm == "truncate":
        result.write_text("who")
    else:
        result.unlink()
    entry = Cache(tmp_path).entry("kind", "key", build)
    assert (entry / "result").read_text() == "whole"
    assert build.calls == 2


def test_the_quicker_of_two_equal_builds_wins(tmp_path: Path) -> None:
    def slow(work: Path) -> None:
        Cache(tmp_path).entry("kind", "key", Builder())
        (work / "result").write_text("whole")

    entry = Cache(tmp_path).entry("kind", "key", slow)
    assert (entry / "result").read_text() == "whole"


def test_a_file_keeps_its_old_content_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")

    def interrupted() -> None:
        with replacing(target) as place:
            place.write_text("ne")
            raise BuildError("interrupted")

    with pytest.raises(BuildError):
        interrupted()
    assert target.read_text() == "old"
    with replacing(target) as place:
        place.write_text("new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_command_that_fails_is_told_in_one_line() -> None:
    with pytest.raises(BuildError) as caught:
        run(["sh", "-c", "echo first >&2; echo the reason >&2; exit 3"])
    assert str(caught.value) == "sh failed: the reason"


def test_a_line_that_is_marked_as_the_error_is_the_reason() -> None:
    with pytest.raises(BuildError) as caught:
        run(["sh", "-c", "echo 'ERROR: hash differs' >&2; echo '   got 12' >&2; exit 1"])
    assert str(caught.value) == "sh failed: ERROR: hash differs"


def test_a_command_that_is_missing_is_named() -> None:
    with pytest.raises(BuildError, match="nonesuch is not installed"):
        run(["nonesuch"])
