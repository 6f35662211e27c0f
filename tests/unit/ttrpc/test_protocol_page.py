"""The example of PROTOCOL.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kuasar_agent import ttrpc


def test_the_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(ttrpc.__file__).parent / "PROTOCOL.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(example, {"address": f"unix://{tmp_path}/example.sock"})  # noqa: S102
    assert "/grpc.SandboxService/Check" in capsys.readouterr().out
