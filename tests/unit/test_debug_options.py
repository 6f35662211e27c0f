"""The files that kuasar-debug boots, and what it says when one is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kuasar_debug import images
from kuasar_debug.boot_options import make_config
from kuasar_host.config import RootDisk
from kuasar_host.errors import HostError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directory of an image, named by the environment."""
    directory = tmp_path / "image"
    directory.mkdir()
    for name in (images.KERNEL, images.INITRD):
        (directory / name).touch()
    monkeypatch.setenv(images.VARIABLE, str(directory))
    return directory


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere/kuasar.img"
    path.parent.mkdir()
    path.touch()
    return path


def options(image: Path | None = None, pmem: bool = False, **given: Any) -> dict[str, Any]:
    return {"kernel": None, "initrd": (), **given, "image": image, "pmem": pmem}


def test_without_a_disk_the_initrd_is_the_root(tree: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, options())
    assert (config.root, config.kernel) == (None, tree / images.KERNEL)
    assert config.initrd == [tree / images.INITRD]


def test_a_disk_is_mounted_by_the_initrd_beside_it(tree: Path, disk: Path, tmp_path: Path) -> None:
    assert make_config(tmp_path, options(disk, True)).initrd == []
    helper = disk.with_name(images.BOOT_INITRD)
    helper.touch()
    config = make_config(tmp_path, options(disk, True))
    assert (config.root, config.initrd) == (RootDisk(disk, pmem=True), [helper])


def test_a_disk_takes_the_kernel_beside_it(tree: Path, disk: Path, tmp_path: Path) -> None:
    assert make_config(tmp_path, options(disk)).kernel == tree / images.KERNEL
    disk.with_name(images.KERNEL).touch()
    assert make_config(tmp_path, options(disk)).kernel == disk.with_name(images.KERNEL)


def test_files_that_were_named_are_taken(tree: Path, disk: Path, tmp_path: Path) -> None:
    asked = tmp_path / "other"
    asked.touch()
    for image in (None, disk):
        config = make_config(tmp_path, options(image, initrd=(asked,), kernel=asked))
        assert (config.kernel, config.initrd) == (asked, [asked])


def test_pmem_without_a_disk_is_an_error(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="--image"):
        make_config(tmp_path, options(None, True))


def test_a_missing_file_is_an_error_that_says_how_to_get_it(tree: Path, tmp_path: Path) -> None:
    (tree / images.INITRD).unlink()
    with pytest.raises(HostError, match=r"kuasar\.initrd does not exist: `make image` builds"):
        make_config(tmp_path, options())


def test_an_installed_command_without_an_image_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(images.VARIABLE, raising=False)
    monkeypatch.setattr(images, "_TREE", tmp_path)
    with pytest.raises(HostError, match=r"no guest image: run `make image`.*KUASAR_IMAGE"):
        make_config(tmp_path, options())
