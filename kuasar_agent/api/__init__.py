"""The messages and services of the host contract, generated from `proto/` by `make proto`."""

from __future__ import annotations

import importlib.util
import sys


def _import_when_used(package: str, name: str) -> None:
    """Put off the import of a package's module until something asks for one of its names."""
    full_name = f"{package}.{name}"
    spec = importlib.util.find_spec(full_name)
    if full_name in sys.modules or spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[full_name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Without this, `from package import name` would ask the module whether it is complete.
    setattr(sys.modules[package], name, module)


# protobuf imports its implementation in Python even where the one in C serves: a tenth of the time
# that the agent takes to start.
_import_when_used("google.protobuf.internal", "python_message")
