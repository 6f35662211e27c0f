"""The drawing of a start-up, which takes matplotlib."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from kuasar_debug import timeline_svg, timeline_text
from kuasar_host import timeline
from tests.support.boot_report import boot_report


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_start_up_can_be_looked_at(tmp_path: Path, ending: str) -> None:
    drawn = timeline.Timeline(list(timeline.bars(boot_report(), 100)), 2550, 2600, "Linux, tcg")
    path = tmp_path / f"boot.{ending}"
    timeline_svg.draw(drawn, path)
    if ending == "svg":
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    else:
        assert path.read_bytes().startswith(b"\x89PNG")
    lines = timeline_text.text(drawn).splitlines()
    assert "Linux, tcg" in lines[0]
    assert [line.split("  ")[0] for line in lines[2:4]] == ["QEMU and its firmware", "kernel"]
