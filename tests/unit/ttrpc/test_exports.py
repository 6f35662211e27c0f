"""The public names of the package, and their late import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kuasar_agent import ttrpc


def test_every_public_name_is_there_and_has_a_docstring() -> None:
    assert "Server" in ttrpc.__all__
    assert [name for name in ttrpc.__all__ if not getattr(ttrpc, name).__doc__] == []


def test_names_are_unique_and_listed_by_dir() -> None:
    assert len(ttrpc.__all__) == len(set(ttrpc.__all__))
    assert set(ttrpc.__all__) <= set(dir(ttrpc))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Serve'"):
        ttrpc.Serve  # noqa: B018
    assert not hasattr(ttrpc, "_private")


@pytest.mark.parametrize(
    ("names", "absent"),
    [
        ("NotFound, Unimplemented", ("gevent", "google.protobuf")),
        ("Context, cancellable", ("gevent.socket", "google.protobuf")),
        ("Server, listen", ("kuasar_agent.ttrpc.client", "kuasar_agent.ttrpc.client_core")),
    ],
)
def test_name_imports_no_more_than_it_needs(names: str, absent: tuple[str, ...]) -> None:
    code = f"from kuasar_agent.ttrpc import {names}; import sys; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert [name for name in absent if name in loaded] == []
