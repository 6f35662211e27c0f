"""The pages of the package: PROTOCOL.md's example runs, README.md's reference is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from kuasar_agent import ttrpc

PACKAGE = Path(ttrpc.__file__).parent


def test_the_example_runs_as_it_stands() -> None:
    page = (PACKAGE / "PROTOCOL.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    output = subprocess.check_output([sys.executable, "-c", example], text=True)
    assert output == "hello world, from /example.Greeter/SayHello\n"


def test_the_reference_names_every_public_name() -> None:
    page = (PACKAGE / "README.md").read_text()
    assert [name for name in ttrpc.__all__ if not re.search(rf"\b{name}\b", page)] == []


def test_the_reference_names_every_method() -> None:
    page = (PACKAGE / "README.md").read_text()
    classes = (
        ttrpc.Server,
        ttrpc.Client,
        ttrpc.Context,
        ttrpc.Metadata,
        ttrpc.ServerStream,
        ttrpc.ClientStream,
    )
    for_connections = {"admit", "release", "forget", "cancel", "park", "wake"}
    methods = {name for cls in classes for name in dir(cls) if not name.startswith("_")}
    assert [name for name in methods - for_connections if not re.search(rf"\b{name}\b", page)] == []
