"""The host's end of the console's exec protocol."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import gevent
import pytest
from gevent.socket import socketpair

from kuasar_debug import exec as exec_
from kuasar_debug.exec import HEADER, Output, command_line
from kuasar_host.errors import HostError

TOKEN = "12-34"
MARKER = b"__KSR_EXIT__:12-34:"


def collect(data: bytes, size: int) -> tuple[bytes, int]:
    written: list[bytes] = []
    output = Output(TOKEN, written.append)
    for start in range(0, len(data), size):
        output.feed(data[start : start + size])
    status = output.finish()
    return b"".join(written), status


@pytest.mark.parametrize("size", [1, 2, 7, 25, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_marker_is_found_however_the_output_is_cut(size: int, end: bytes) -> None:
    assert collect(b"some output\n" + MARKER + b"130" + end, size) == (b"some output\n", 130)


def test_only_the_last_marker_counts() -> None:
    data = MARKER + b"1\n" + b"x" * 100 + MARKER + b"0\n"
    assert collect(data, 10) == (MARKER + b"1\n" + b"x" * 100, 0)


def test_a_marker_with_another_token_is_output() -> None:
    other = b"__KSR_EXIT__:99-99:5\n"
    assert collect(other + MARKER + b"0\n", 3) == (other, 0)


@pytest.mark.parametrize(
    "data", [b"", b"output", MARKER, MARKER + b"x\n", MARKER + b"0\nmore", MARKER + b"0\n\n"]
)
def test_without_a_marker_at_the_end_there_is_no_status(data: bytes) -> None:
    written: list[bytes] = []
    output = Output(TOKEN, written.append)
    output.feed(data)
    with pytest.raises(HostError):
        output.finish()
    assert b"".join(written) == data


def test_output_that_cannot_be_a_marker_is_not_held_back() -> None:
    written: list[bytes] = []
    Output(TOKEN, written.append).feed(b"up\n")
    assert written == [b"up\n"]


def test_an_interrupted_command_loses_no_output() -> None:
    written: list[bytes] = []
    output = Output(TOKEN, written.append)
    output.feed(b"half a marker: " + MARKER[:5])
    output.give_up()
    assert b"".join(written) == b"half a marker: " + MARKER[:5]


WORDS = ["a b", "it's", "", "tab\tnew\nline", "back\\slash \\n", "é\udcff", "$x `y` !z", "-n", "%s"]


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_every_word_reaches_the_command_as_it_is(shell: str) -> None:
    command = ["sh", "-c", 'for word; do printf "%s\\0" "$word"; done; exit 3', "sh", *WORDS]
    line = command_line(command, TOKEN)
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    done = subprocess.run([shell], input=line, capture_output=True, check=False)
    words = b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in WORDS)
    assert done.stdout == words + MARKER + b"3\n"
    assert done.returncode == 3


def test_a_command_longer_than_one_argument_may_be() -> None:
    done = subprocess.run(
        ["sh"],
        input=command_line(["printf", "%s", *["\\" * 1000] * 300], TOKEN),
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"\\" * 300_000 + MARKER + b"0\n"


def test_the_header_leaves_before_the_command_line_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, guest = socketpair()
    guest.settimeout(60)

    def make(command: Sequence[str], token: str) -> bytes:
        assert guest.recv(100) == HEADER
        return b"the line\n"

    monkeypatch.setattr(exec_, "command_line", make)
    running = gevent.spawn(exec_.run, ours, ["true"], lambda _: None)
    assert guest.recv(100) == b"the line\n"
    guest.close()
    with pytest.raises(HostError, match="without an exit status"):
        running.get(timeout=60)
    ours.close()
