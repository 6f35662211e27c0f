"""`python -m tests.fuzz CORPUS [libFuzzer's options…]`: both cores, guided by coverage.

Inputs that reach new code are kept in the corpus; one that breaks a rule is written to the build
folder, and its name ends the output. The last line has the number of inputs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["kuasar_agent.ttrpc"]):
    from tests.fuzz.cores import METHODS, try_bytes
    from tests.support.ttrpc.wire import ND, RC, RO, data, frame, reply, request


def seed(corpus: Path) -> None:
    """One good start for each method and kind of frame."""
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = {name: request(1, name, flags=RO) + data(1, "x") + data(1) for name in METHODS}
    seeds["close"] = data(7, "x", RC) + data(15, flags=RC | ND)
    seeds["reply"] = reply(1, "x") + reply(5)
    seeds["error"] = frame(3, 2, 0, b"\x0a\x02\x08\x05")
    for name, content in seeds.items():
        (corpus / f"seed-{name}").write_bytes(content)


seed(Path(sys.argv[1]))
atheris.Setup(sys.argv, try_bytes)
atheris.Fuzz()
