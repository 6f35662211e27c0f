"""The order in which PID 1 loads kernel modules."""

from __future__ import annotations

import pytest

from image import modules
from image.errors import BuildError
from image.modules import Index

INDEX = Index(
    {
        "kernel/a.ko": ["kernel/b.ko", "kernel/c.ko"],
        "kernel/b.ko": ["kernel/c.ko"],
        "kernel/c.ko": [],
        "kernel/virtio-rng.ko": [],
        "kernel/d.ko": ["kernel/c.ko"],
    },
    built_in=["kernel/fs/ext4/ext4.ko"],
)


def test_a_module_comes_after_everything_it_needs() -> None:
    assert INDEX.load_order(["a"]) == ["kernel/c.ko", "kernel/b.ko", "kernel/a.ko"]


def test_the_wanted_order_is_kept_where_dependencies_allow() -> None:
    order = INDEX.load_order(["virtio_rng", "d", "b"])
    assert order == ["kernel/virtio-rng.ko", "kernel/c.ko", "kernel/d.ko", "kernel/b.ko"]


def test_no_module_is_listed_twice() -> None:
    order = INDEX.load_order(["a", "d", "a", "c"])
    assert len(order) == len(set(order)) == 4


def test_what_an_earlier_list_loads_is_not_repeated() -> None:
    assert INDEX.load_order(["d"], loaded=["kernel/c.ko"]) == ["kernel/d.ko"]


def test_a_module_built_into_the_kernel_needs_no_loading() -> None:
    assert INDEX.load_order(["ext4"]) == []


def test_dashes_and_underscores_are_the_same() -> None:
    assert INDEX.load_order(["virtio-rng"]) == INDEX.load_order(["virtio_rng"])


def test_a_module_that_the_kernel_lacks_is_an_error() -> None:
    with pytest.raises(BuildError, match="no module nonesuch"):
        INDEX.load_order(["nonesuch"])


def test_vsock_loopback_is_on_no_list() -> None:
    groups = [*modules.LISTS.values(), modules.ON_DEMAND]
    wanted = {name for group in groups for name in modules.names(group)}
    assert "vsock_loopback" not in wanted
