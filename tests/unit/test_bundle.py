"""What the agent changes in a container's spec, and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kuasar_agent.containers.bundle import (
    Bundle,
    adapt_spec,
    load_bundle,
    translate_cgroups_path,
    write_spec,
)
from kuasar_agent.errors import Unknown
from kuasar_agent.stdio.urls import StdioUrls


@pytest.mark.parametrize(
    ("path", "translated"),
    [
        ("", ""),
        ("/kubepods/pod1/c1", "/kubepods/pod1/c1"),
        ("system.slice:docker:c1", "/system.slice/docker-c1.scope"),
        (
            "kubepods-besteffort-pod1.slice:cri-containerd:c1",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/"
            "cri-containerd-c1.scope",
        ),
        ("-.slice:docker:c1", "/docker-c1.scope"),
        (":docker:c1", "/docker-c1.scope"),
        ("a.slice::c1", "/a.slice/c1.scope"),
        ("a.slice:docker:b.slice", "/a.slice/b.slice"),
        ("/a:b:c", "/a:b:c"),
        ("a:b", "a:b"),
    ],
)
def test_a_cgroup_in_systemds_notation_becomes_a_path(path: str, translated: str) -> None:
    assert translate_cgroups_path(path) == translated


def bundle(path: Path, **spec: Any) -> Bundle:
    (path / "config.json").write_text(json.dumps(spec))
    (path / "storage-c1").write_text("[]")
    return load_bundle(str(path), "c1")


def test_a_spec_that_suits_is_left_alone(tmp_path: Path) -> None:
    loaded = bundle(tmp_path, process={"terminal": True}, linux={"cgroupsPath": "/a"})
    before = json.dumps(loaded.spec)
    assert adapt_spec(loaded, StdioUrls(terminal=True)) == []
    assert json.dumps(loaded.spec) == before


def test_every_change_is_written_and_told(tmp_path: Path) -> None:
    loaded = bundle(tmp_path, process={"args": ["x"]}, linux={"cgroupsPath": "a.slice:b:c"})
    changes = adapt_spec(loaded, StdioUrls(terminal=True))
    assert changes == ["process.terminal is true", "linux.cgroupsPath is /a.slice/b-c.scope"]
    write_spec(loaded)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written == {
        "process": {"args": ["x"], "terminal": True},
        "linux": {"cgroupsPath": "/a.slice/b-c.scope"},
    }
    assert load_bundle(str(tmp_path), "c1").spec == loaded.spec == written


def test_a_spec_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    loaded = bundle(tmp_path, process={})
    gone = loaded._replace(path=str(tmp_path / "gone"))
    with pytest.raises(Unknown, match=r"failed to write file .*/gone/config\.json"):
        write_spec(gone)
