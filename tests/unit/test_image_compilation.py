"""The configuration of the kernel from source."""

from __future__ import annotations

import pytest

from image import compilation
from image.errors import BuildError


def test_settings_are_read_whether_on_or_off() -> None:
    text = '# why\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="-kuasar"\n'
    assert compilation.settings(text) == {"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_C": '"-kuasar"'}


def test_a_line_that_had_no_effect_is_an_error() -> None:
    wanted = "CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\n# CONFIG_D is not set\n"
    got = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_D=y\n"
    with pytest.raises(BuildError) as caught:
        compilation.check_settings(wanted, got)
    assert str(caught.value).endswith(": CONFIG_B CONFIG_D")
    compilation.check_settings(wanted, "CONFIG_A=y\nCONFIG_B=y\n")


def test_every_group_of_settings_says_why_it_is_there() -> None:
    lines = compilation.CONFIG.read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if compilation.settings(line):
            assert before.startswith("#") or compilation.settings(before), line


def test_no_setting_is_there_twice() -> None:
    lines = compilation.CONFIG.read_text().splitlines()
    names = [name for line in lines for name in compilation.settings(line)]
    assert sorted(set(names)) == sorted(names)


def test_what_the_agent_cannot_do_without_is_built_in() -> None:
    settings = compilation.settings(compilation.CONFIG.read_text())
    for name in ("VIRTIO_VSOCKETS", "VIRTIO_FS", "9P_FS", "OVERLAY_FS", "EXT4_FS", "VIRTIO_PMEM"):
        assert settings[f"CONFIG_{name}"] == "y"


def test_no_container_can_reach_the_agent_through_vsock_loopback() -> None:
    assert compilation.settings(compilation.CONFIG.read_text())["CONFIG_VSOCKETS_LOOPBACK"] == "n"
