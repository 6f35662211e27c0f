"""A booted microVM for the tests that do not care how it was booted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kuasar_host.microvm import MicroVM
from tests.support.guest import Guest, config, disk


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest with the defaults, shared by the whole session."""
    directory = tmp_path_factory.mktemp("vm")
    with MicroVM.boot(config(directory, disks=[disk(directory)])) as vm:
        yield Guest(vm)
        print("console:", vm.console.tail(), sep="\n")
