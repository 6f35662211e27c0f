"""Log lines: logfmt that survives any value, on a console that may be stuck."""

from __future__ import annotations

import errno
import json
import os
import re
import select
from collections.abc import Iterator
from enum import IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuasar_agent import log

_PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ ]*)(?: |$)')


def parse(line: str) -> dict[str, str]:
    pairs = {}
    end = 0
    for match in _PAIR.finditer(line):
        assert match.start() == end, line
        end = match.end()
        value = match[2]
        pairs[match[1]] = json.loads(value) if value.startswith('"') else value
    assert end == len(line), line
    return pairs


def render(**fields: object) -> str:
    return log.format_line("1.000000", "info", "m", fields).removeprefix(
        'ts=1.000000 level=info msg="m"'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("line\nfeed", r'"line\nfeed"'),
        ("\x1b[31m", r'"\u001b[31m"'),
        ("naïve", "naïve"),
        ("\udcff", r'"\udcff"'),
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (1.5, "1.5"),
        (b"raw\xff", '"raw\\\\xff"'),
        (
            OSError(errno.EBUSY, "Device or resource busy", "/x"),
            '"EBUSY Device or resource busy: /x"',
        ),
        (OSError("no number"), '"no number"'),
        (KeyError(), "KeyError"),
    ],
)
def test_a_value_is_quoted_only_where_it_must_be(value: object, text: str) -> None:
    assert render(key=value) == f" key={text}"


def test_a_long_value_is_cut_and_says_by_how_much() -> None:
    value = parse(render(key="x" * 5000).lstrip())["key"]
    assert value == "x" * log.VALUE_LIMIT + "…(+904)"


def test_a_value_that_cannot_be_printed_does_not_raise() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    assert render(key=Hostile()) == ' key="<unprintable Hostile>"'


@given(st.text(), st.dictionaries(st.from_regex("[a-z_]+", fullmatch=True), st.text()))
def test_any_text_comes_back_from_one_line(msg: str, fields: dict[str, str]) -> None:
    reserved = {"ts", "level", "msg"}
    fields = {key: value for key, value in fields.items() if key not in reserved}
    line = log.format_line("0.1", "warn", msg, dict(fields))
    assert "\n" not in line
    expected = {"ts": "0.1", "level": "warn", "msg": msg, **fields}
    assert parse(line) == expected


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, log.LogSink]]:
    """The read end of a small pipe, and a console that writes to its non-blocking other end."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    console = log.LogSink(writer)
    monkeypatch.setattr(log, "console", console)
    yield reader, console
    os.close(reader)
    os.close(writer)


def drain(fd: int) -> str:
    data = b""
    while True:
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return data.decode()
        data += chunk


def test_a_line_has_the_kernels_time_the_level_the_module_and_the_fields(
    pipe: tuple[int, log.LogSink],
) -> None:
    log.get_logger("kuasar_agent.boot.sequence").info("step done", pid=7)
    assert re.fullmatch(
        r'ts=\d+\.\d{6} level=info msg="step done" src=boot\.sequence pid=7\n', drain(pipe[0])
    )


@pytest.mark.parametrize(
    ("level", "kept"),
    [
        ("trace", ["trace", "debug", "info", "warn", "error"]),
        ("debug", ["debug", "info", "warn", "error"]),
        ("info", ["info", "warn", "error"]),
        ("warn", ["warn", "error"]),
        ("warning", ["warn", "error"]),
        ("error", ["error"]),
        ("off", []),
    ],
)
def test_lines_below_the_level_are_dropped(
    pipe: tuple[int, log.LogSink], level: str, kept: list[str]
) -> None:
    logger = log.get_logger("x")
    log.set_level(level)
    try:
        logger.trace("m")
        logger.debug("m")
        logger.info("m")
        logger.warning("m")
        logger.error("m")
    finally:
        log.set_level("info")
    assert [parse(line)["level"] for line in drain(pipe[0]).splitlines()] == kept


def test_a_json_line_has_the_same_fields_and_keeps_numbers() -> None:
    class Level(IntEnum):
        HIGH = 3

    fields: dict[str, object] = {"a": 7, "b": True, "c": None, "d": 'say "hi"'}
    fields |= {"e": Level.HIGH, "f": b"\xff"}
    line = log.format_json("1.25", "info", "two words", fields)
    assert json.loads(line) == {
        **{"ts": 1.25, "level": "info", "msg": "two words", "a": 7, "b": True, "c": None},
        **{"d": 'say "hi"', "e": 3, "f": "\\xff"},
    }


@given(st.text(), st.dictionaries(st.from_regex("[a-z_]+", fullmatch=True), st.text()))
def test_any_text_comes_back_from_one_line_of_json(msg: str, fields: dict[str, str]) -> None:
    fields = {key: value for key, value in fields.items() if key not in ("ts", "level", "msg")}
    line = log.format_json("0.1", "warn", msg, dict(fields))
    assert "\n" not in line
    assert json.loads(line) == {"ts": 0.1, "level": "warn", "msg": msg, **fields}


def test_the_format_can_be_chosen(pipe: tuple[int, log.LogSink]) -> None:
    log.set_format("json")
    try:
        log.get_logger("x").info("m", id="c1")
    finally:
        log.set_format("logfmt")
    fields = json.loads(drain(pipe[0]))
    assert fields.pop("ts") > 0
    assert fields == {"level": "info", "msg": "m", "src": "x", "id": "c1"}


def test_a_message_that_comes_too_often_is_dropped_and_counted(
    pipe: tuple[int, log.LogSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("kuasar_agent.log.time.monotonic", lambda: now)
    logger = log.get_logger("x")
    for number in range(log.BURST + 7):
        logger.info("flood", number=number)
    logger.info("other")
    lines = [parse(line) for line in drain(pipe[0]).splitlines()]
    assert [line["msg"] for line in lines] == ["flood"] * log.BURST + ["other"]
    now += log.WINDOW
    log.report_dropped()
    logger.info("flood")
    dropped, flood = (parse(line) for line in drain(pipe[0]).splitlines())
    assert (dropped["msg"], dropped["dropped"]) == ("log lines dropped", "flood")
    assert dropped["count"] == "7"
    assert flood["msg"] == "flood"
    log.report_dropped()
    assert drain(pipe[0]) == ""


def test_an_exception_line_carries_the_traceback_on_one_line(
    pipe: tuple[int, log.LogSink],
) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        log.get_logger("x").exception("failed", id="c1")
    (line,) = drain(pipe[0]).splitlines()
    fields = parse(line)
    assert fields["id"] == "c1"
    assert fields["traceback"].endswith("ValueError: broken")


@pytest.mark.parametrize("length", [1000, 10_000])  # writes that a pipe takes whole, or in part
def test_a_stuck_console_drops_lines_and_counts_them(
    pipe: tuple[int, log.LogSink], length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, console = pipe
    line = "x" * length
    written = 0
    while not console.lost:
        console.write(line)
        written += 1
    with monkeypatch.context() as patch:
        patch.delattr(select, "poll")  # only the first line may wait
        for _ in range(9):
            console.write(line)
    text = drain(reader)
    console.write("after")
    *lines, lost, after = (text + drain(reader)).splitlines()
    assert lines[: written - 1] == [line] * (written - 1)
    assert all(line.startswith(torn) for torn in lines[written - 1 :])
    assert parse(lost)["count"] == "10"
    assert after == "after"


def test_a_closed_console_is_survived() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    console = log.LogSink(writer)
    console.write("nobody reads this")
    assert console.lost == 1
