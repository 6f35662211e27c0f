"""Reading a container's bundle and writing its spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kuasar_agent.containers.bundle import Bundle, load_bundle, write_spec
from kuasar_agent.errors import Unknown


def bundle(path: Path, **spec: Any) -> Bundle:
    (path / "config.json").write_text(json.dumps(spec))
    (path / "storage-c1").write_text("[]")
    return load_bundle(str(path), "c1")


def test_a_changed_spec_replaces_the_hosts(tmp_path: Path) -> None:
    loaded = bundle(tmp_path, process={"args": ["x"]})
    loaded.spec["hostname"] = "new"
    write_spec(loaded)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "storage-c1"]
    assert load_bundle(str(tmp_path), "c1").spec == loaded.spec
    assert loaded.spec == {"process": {"args": ["x"]}, "hostname": "new"}


def test_a_spec_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    loaded = bundle(tmp_path, process={})
    gone = loaded._replace(path=str(tmp_path / "gone"))
    with pytest.raises(Unknown, match=r"failed to write file .*/gone/config\.json"):
        write_spec(gone)
