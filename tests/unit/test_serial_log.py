"""What the host reads from the guest's console."""

from __future__ import annotations

import io
from pathlib import Path

import gevent
import pytest

from kuasar_host.serial_log import SerialLog

LINES = b"""\
[    0.000000] Linux version 6.1
ts=1.200000 level=info msg="boot step" step=mounts start_ms=1190.5 ms=13.5
ts=1.300000 level=info msg="boot step" step=broken start_ms=1190.5
ts=1.400000 level=info msg="unbalanced
ts=1.500000 level=info msg=serving version=0.1.0 kernel=6.1.0 cgroup=v2 address=vsock://-1:1024
"""


def follow(path: Path, data: bytes) -> SerialLog:
    console = SerialLog(path)
    path.write_bytes(b"")
    console.follow(io.BytesIO(data))
    return console


def test_the_line_serving_is_remembered_and_other_lines_are_skipped(tmp_path: Path) -> None:
    console = follow(tmp_path / "console.log", LINES)
    assert console.serving()["version"] == "0.1.0"
    assert (tmp_path / "console.log").read_bytes() == LINES


def test_lines_of_json_are_read_as_well(tmp_path: Path) -> None:
    step = b'{"ts":1.2,"level":"info","msg":"boot step","step":"mounts","ms":"13.5"}\n'
    serving = b'{"ts":1.5,"level":"info","msg":"serving","version":"0.1.0","on":true}\n'
    console = follow(tmp_path / "console.log", step + b'{"ts":broken\n' + serving)
    assert (console.serving()["version"], console.serving()["on"]) == ("0.1.0", "true")


def test_serving_waits_for_the_line(tmp_path: Path) -> None:
    console = SerialLog(tmp_path / "console.log")
    assert console.serving() == {}
    waiting = gevent.spawn(console.serving, 60)
    gevent.sleep(0)
    console.follow(io.BytesIO(LINES))
    assert waiting.get(timeout=60)["cgroup"] == "v2"


def test_the_kernels_start_is_reckoned_from_the_first_line_of_the_agent(tmp_path: Path) -> None:
    console = follow(tmp_path / "console.log", LINES)
    assert console.init_at is not None
    assert console.kernel_at == pytest.approx(console.init_at - 1.2)


def test_bytes_that_are_no_text_are_kept_and_shown_as_replacement(tmp_path: Path) -> None:
    console = follow(tmp_path / "console.log", b"\xff\xfe\n\nts=\xff\n")
    assert (tmp_path / "console.log").read_bytes() == b"\xff\xfe\n\nts=\xff\n"
    assert console.tail() == "\ufffd\ufffd\n\nts=\ufffd"


def test_a_panic_is_remembered(tmp_path: Path) -> None:
    console = follow(tmp_path / "console.log", b"[ 1.0] Kernel panic - not syncing: x\n")
    assert console.panic == "[ 1.0] Kernel panic - not syncing: x"
    assert console.ended.is_set()


def test_a_console_that_another_process_followed_gives_the_same(tmp_path: Path) -> None:
    first = follow(tmp_path / "console.log", LINES)
    second = SerialLog(tmp_path / "console.log")
    second.read_past(100.0)
    assert second.serving() == first.serving()
    assert second.init_at == 100.0
    assert second.kernel_at == pytest.approx(98.8)


def test_without_the_time_of_the_first_line_that_of_the_kernel_is_unknown(tmp_path: Path) -> None:
    follow(tmp_path / "console.log", LINES)
    second = SerialLog(tmp_path / "console.log")
    second.read_past(None)
    assert (second.init_at, second.kernel_at) == (None, None)
