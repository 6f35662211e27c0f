"""The package could be published by itself: it uses nothing else of the agent."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kuasar_agent import ttrpc

PACKAGE = Path(ttrpc.__file__).parent
MODULES = sorted(PACKAGE.glob("*.py"))

USE = """
import importlib, sys
from google.protobuf.wrappers_pb2 import StringValue

for name in sys.argv[2:]:
    importlib.import_module(f"kuasar_agent.ttrpc.{name}")
from kuasar_agent import ttrpc
from kuasar_agent.ttrpc import Server, Unimplemented, connect, listen

server = Server()
server.start(listen(sys.argv[1]))
with connect(sys.argv[1]) as client:
    try:
        client.call("/no.Such/Method", StringValue(), reply_type=StringValue)
    except Unimplemented as error:
        print(ttrpc.__file__, error, sep="\\n")
server.close()
"""


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_module_imports_nothing_of_the_agent(module: Path) -> None:
    """Late imports included, which a run might never reach."""
    imported: list[str] = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            imported += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1
            if not node.level:
                imported.append(str(node.module))
    assert [name for name in imported if name.startswith("kuasar_")] == []


def test_package_works_without_the_rest_of_the_agent(tmp_path: Path) -> None:
    copy = tmp_path / "kuasar_agent" / "ttrpc"
    shutil.copytree(PACKAGE, copy)
    # Without this, Python would prefer the installed agent.
    copy.with_name("__init__.py").touch()
    names = [module.stem for module in MODULES if module.stem != "__init__"]
    command = [sys.executable, "-c", USE, f"unix://{tmp_path}/sock", *names]
    found = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    assert found.stdout == f"{copy}/__init__.py\nservice no.Such\n"
