"""Putting an image where Kuasar looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from image.errors import BuildError
from image.install import DIRECTORY, install


@pytest.fixture
def image(tmp_path: Path) -> Path:
    directory = tmp_path / "image"
    directory.mkdir()
    for name in ("vmlinux", "kuasar.initrd", "kuasar.img"):
        (directory / name).write_text(f"new {name}")
    return directory


def contents(destination: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (destination / DIRECTORY).iterdir()}


def test_the_files_get_the_names_of_kuasars_configuration(image: Path, tmp_path: Path) -> None:
    list(install(image, tmp_path))
    assert contents(tmp_path) == {
        "vmlinux": "new vmlinux",
        "vmlinux.bin": "new vmlinux",
        "kuasar.initrd": "new kuasar.initrd",
        "kuasar.img": "new kuasar.img",
    }


def test_what_was_there_first_is_kept_and_stays_kept(image: Path, tmp_path: Path) -> None:
    place = tmp_path / DIRECTORY
    place.mkdir(parents=True)
    (place / "kuasar.img").write_text("vmm-task's")
    list(install(image, tmp_path))
    (image / "kuasar.img").write_text("newer")
    list(install(image, tmp_path))
    after = contents(tmp_path)
    assert (after["kuasar.img"], after["kuasar.img.orig"]) == ("newer", "vmm-task's")
    assert [name for name in after if name.endswith(".orig")] == ["kuasar.img.orig"]


def test_a_microvm_keeps_the_file_that_it_has_open(image: Path, tmp_path: Path) -> None:
    list(install(image, tmp_path))
    with (tmp_path / DIRECTORY / "kuasar.img").open() as running:
        (image / "kuasar.img").write_text("newer")
        list(install(image, tmp_path))
        assert running.read() == "new kuasar.img"


def test_a_copy_that_fails_leaves_the_old_file(image: Path, tmp_path: Path) -> None:
    list(install(image, tmp_path))
    (image / "vmlinux").unlink()
    (image / "vmlinux").mkdir()
    with pytest.raises((BuildError, OSError)):
        list(install(image, tmp_path))
    assert contents(tmp_path)["vmlinux"] == "new vmlinux"


def test_an_equal_file_is_left_alone(image: Path, tmp_path: Path) -> None:
    list(install(image, tmp_path))
    before = (tmp_path / DIRECTORY / "kuasar.img").stat().st_ino
    assert all(line.endswith("unchanged") for line in install(image, tmp_path))
    assert (tmp_path / DIRECTORY / "kuasar.img").stat().st_ino == before
