"""Generate the protobuf modules (`*_pb2.py`, `*_pb2.pyi`) from the .proto files beside this script.

    python proto/generate.py [--output DIRECTORY]

A .proto file's path below this directory is the module's path below the output directory, which is
the root of the checkout by default. Generated modules without a .proto file are removed.
"""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

SOURCE = Path(__file__).resolve().parent


def generate(output: Path) -> None:
    """Write every module below `output`; raises RuntimeError when protoc rejects a file."""
    protos = [path.relative_to(SOURCE) for path in sorted(SOURCE.rglob("*.proto"))]
    output.mkdir(parents=True, exist_ok=True)
    failed = protoc.main(
        [
            "protoc",
            f"--proto_path={SOURCE}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            "--fatal_warnings",
            f"--python_out={output}",
            f"--pyi_out={output}",
            *map(str, protos),
        ]
    )
    if failed:
        raise RuntimeError("protoc failed")
    _remove_stale(output, protos)


def _remove_stale(output: Path, protos: list[Path]) -> None:
    expected = {
        output / proto.with_name(f"{proto.stem}_pb2{suffix}")
        for proto in protos
        for suffix in (".py", ".pyi")
    }
    for top in {proto.parts[0] for proto in protos}:
        for module in (output / top).rglob("*_pb2.py*"):
            if module.suffix in (".py", ".pyi") and module not in expected:
                module.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate the protobuf modules.")
    parser.add_argument("--output", type=Path, default=SOURCE.parent)
    try:
        generate(parser.parse_args().output)
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
