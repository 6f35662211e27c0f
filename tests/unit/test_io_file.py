"""What an io file must say to count, and how it goes together with the request and the spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kuasar_agent.containers.bundle import Bundle, load_stdio
from kuasar_agent.stdio.urls import StdioUrls

COMPLETE = {"stdin": "", "stdout": "chardev7", "stderr": "vsock://3:1", "terminal": False}
REQUESTED = StdioUrls("in", "out", "err")


def test_a_complete_file_counts(tmp_path: Path) -> None:
    (tmp_path / "io").write_text(json.dumps(COMPLETE))
    assert load_stdio(str(tmp_path / "io")) == StdioUrls("", "chardev7", "vsock://3:1")


@pytest.mark.parametrize(
    "content",
    [
        *({key: value for key, value in COMPLETE.items() if key != gone} for gone in COMPLETE),
        COMPLETE | {"stdin": None},
        COMPLETE | {"terminal": "false"},
        [],
        None,
    ],
)
def test_without_a_complete_file_the_request_counts(tmp_path: Path, content: Any) -> None:
    (tmp_path / "io").write_text(json.dumps(content))
    assert load_stdio(str(tmp_path / "io")) is None


def test_a_file_that_is_missing_or_no_json_does_not_count(tmp_path: Path) -> None:
    assert load_stdio(str(tmp_path / "io")) is None
    (tmp_path / "io").write_text("{")
    assert load_stdio(str(tmp_path / "io")) is None


@pytest.mark.parametrize(
    ("by_request", "by_file", "by_spec"),
    [(True, False, False), (False, True, False), (False, False, True), (False, False, False)],
)
def test_a_terminal_is_asked_for_by_request_file_or_spec(
    by_request: bool, by_file: bool, by_spec: bool
) -> None:
    file = StdioUrls("", "chardev7", "", by_file)
    bundle = Bundle("/bundle", {"process": {"terminal": by_spec}}, [], file)
    wanted = file._replace(terminal=by_request or by_file or by_spec)
    assert bundle.merge_stdio(REQUESTED._replace(terminal=by_request)) == wanted


def test_the_request_counts_where_there_is_no_file() -> None:
    assert Bundle("/bundle", {}, [], None).merge_stdio(REQUESTED) == REQUESTED
