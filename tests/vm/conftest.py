"""A booted microVM for the tests that do not care how it was booted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kuasar_debug.microvm import MicroVM
from tests.vm.guest import Guest, config


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest with the defaults, shared by the whole session."""
    with MicroVM.boot(config(tmp_path_factory.mktemp("vm"))) as vm:
        yield Guest(vm)
        print("console:", vm.console.tail(), sep="\n")
