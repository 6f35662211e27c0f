"""Structured log lines, one write(2) each; logging never raises and never blocks the agent.

    ts=1.204113 level=info msg="container created" src=containers.container id=c1 pid=214
    {"ts":1.204113,"level":"info","msg":"container created","src":"…","id":"c1","pid":214}

`ts` is CLOCK_MONOTONIC in seconds since the kernel started, the clock of the kernel's own messages.
The standard library's logging is not used: importing it would delay the start, and its handlers
block on a console that the host does not read.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time

TRACE, DEBUG, INFO, WARNING, ERROR, OFF = 5, 10, 20, 30, 40, 100

LEVELS = {
    "trace": TRACE,
    "debug": DEBUG,
    "info": INFO,
    "warn": WARNING,
    "warning": WARNING,
    "error": ERROR,
    "off": OFF,
}
_LABELS = {TRACE: "trace", DEBUG: "debug", INFO: "info", WARNING: "warn", ERROR: "error"}

FORMATS = ("logfmt", "json")

BURST = 100
"""Lines of one message within `WINDOW`; further lines are dropped, counted and reported."""

WINDOW = 1.0
"""Seconds."""

VALUE_LIMIT = 4096
"""Characters of one value that are written; the rest is cut and counted."""

KMSG_LIMIT = 900
"""Bytes of one /dev/kmsg record that every kernel accepts; a longer write fails with EINVAL."""

STALL_SECONDS = 0.1
"""Seconds for which one line waits for a full console before the console counts as stuck."""

_PACKAGE = "kuasar_agent."


class LogSink:
    """The console that lines are written to; its descriptor should be in non-blocking mode.

    A console that the host does not read fills up. The first line that finds it full waits
    `STALL_SECONDS`; from then on lines are dropped and counted without waiting. The next line that
    can be written follows a line with the count.
    """

    def __init__(self, fd: int = 2) -> None:
        self.fd = fd
        self.lost = 0
        self._torn = False
        self._stuck = False

    def descriptors(self) -> list[int]:
        return [self.fd]

    def attach(self, fd: int) -> None:
        """Write to `fd` from now on; the caller closes the descriptor used before."""
        self.fd = fd
        self._torn = self._stuck = False

    def write(self, line: str) -> None:
        """Write one line without its newline; a failure is counted, never raised."""
        text = line + "\n"
        if self.lost:
            lost = _format(_now(), "warn", "log lines lost", {"count": self.lost})
            text = f"{lost}\n{text}"
        if self._torn:
            text = "\n" + text
        data = text.encode("utf-8", "backslashreplace")
        left = self._put(data)
        self.lost = self.lost + 1 if left else 0
        if left < len(data):
            self._torn = left > 0

    def _put(self, data: bytes) -> int:
        """Write `data`; return the number of bytes that the console did not take."""
        try:
            left = len(data) - os.write(self.fd, data)
        except BlockingIOError:
            return len(data) if self._stuck else self._put_slowly(data)
        except OSError as error:
            if error.errno == errno.EINVAL and len(data) > KMSG_LIMIT:
                return self._put(data[: KMSG_LIMIT - 1] + b"\n")
            return len(data)
        self._stuck = False
        return self._put_slowly(data[-left:]) if left else 0

    def _put_slowly(self, data: bytes) -> int:
        deadline = time.monotonic() + STALL_SECONDS
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        try:
            while data and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                data = data[os.write(self.fd, data) :]
        except OSError:
            pass
        self._stuck = bool(data)
        return len(data)


class _Limiter:
    """The lines of each message within its window. Messages are literals: the table stays small."""

    MOST = 1024

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], list[float]] = {}
        """Start (seconds), lines written and lines dropped of each message's window."""
        self._dropping = False

    def admit(self, key: tuple[str, str]) -> bool:
        """Count one line of a message; return whether it may be written."""
        now = time.monotonic()
        if self._dropping:
            self.report(now)
        window = self._windows.get(key)
        if window is None or now - window[0] >= WINDOW:
            if len(self._windows) >= self.MOST:
                self._windows.clear()
            self._windows[key] = [now, 1, 0]
            return True
        if window[1] < BURST:
            window[1] += 1
            return True
        window[2] += 1
        self._dropping = True
        return False

    def report(self, now: float) -> None:
        """Write a line for each message that was dropped in a window which is over."""
        self._dropping = False
        for (src, msg), window in list(self._windows.items()):
            if window[2] and now - window[0] >= WINDOW:
                count, window[2] = int(window[2]), 0
                write(WARNING, "log lines dropped", src=src, dropped=msg, count=count)
            elif window[2]:
                self._dropping = True


console = LogSink()
_level = INFO
_limiter = _Limiter()


def set_level(level: str) -> None:
    """Drop lines below `level`, a key of `LEVELS`.

    Raises:
        KeyError: there is no such level.
    """
    global _level
    _level = LEVELS[level]


def is_tracing() -> bool:
    """Return whether lines of level trace are written."""
    return _level <= TRACE


def set_format(name: str) -> None:
    """Write lines in one of `FORMATS` from now on."""
    global _format
    _format = format_json if name == "json" else format_line


def write(level: int, msg: str, /, **fields: object) -> None:
    """Write one line that `BURST` does not limit; the caller gives `src` as a field."""
    if _level <= level:
        console.write(_format(_now(), _LABELS[level], msg, fields))


def report_dropped() -> None:
    """Report dropped lines; called now and then, since a later line may never come."""
    _limiter.report(time.monotonic())


class Logger:
    """The log of one module; its lines carry the module's name within the package as `src`."""

    __slots__ = ("_src",)

    def __init__(self, name: str) -> None:
        self._src = name.removeprefix(_PACKAGE)

    def trace(self, msg: str, /, **fields: object) -> None:
        if _level <= TRACE:
            self._emit(TRACE, msg, fields)

    def debug(self, msg: str, /, **fields: object) -> None:
        if _level <= DEBUG:
            self._emit(DEBUG, msg, fields)

    def info(self, msg: str, /, **fields: object) -> None:
        if _level <= INFO:
            self._emit(INFO, msg, fields)

    def warning(self, msg: str, /, **fields: object) -> None:
        if _level <= WARNING:
            self._emit(WARNING, msg, fields)

    def error(self, msg: str, /, **fields: object) -> None:
        if _level <= ERROR:
            self._emit(ERROR, msg, fields)

    def exception(self, msg: str, /, **fields: object) -> None:
        """Write an error line with the traceback of the exception that is being handled."""
        if _level <= ERROR:
            self._emit(ERROR, msg, {**fields, "traceback": _traceback()})

    def _emit(self, level: int, msg: str, fields: dict[str, object]) -> None:
        if _limiter.admit((self._src, msg)):
            console.write(_format(_now(), _LABELS[level], msg, {"src": self._src, **fields}))


def get_logger(name: str) -> Logger:
    """Return the logger of the module called `name` (`__name__`)."""
    return Logger(name)


def format_line(ts: str, level: str, msg: str, fields: dict[str, object]) -> str:
    """Return a logfmt line; any field value becomes printable text on a single line."""
    pairs = [f"ts={ts}", f"level={level}", f"msg={_quote(_clip(msg))}"]
    pairs += [f"{key}={_value(value)}" for key, value in fields.items()]
    return " ".join(pairs)


def format_json(ts: str, level: str, msg: str, fields: dict[str, object]) -> str:
    """Return the line as one JSON object."""
    pairs = [f'"ts":{ts}', f'"level":"{level}"', f'"msg":{_quote(_clip(msg))}']
    pairs += [f'"{key}":{_json(value)}' for key, value in fields.items()]
    return "{" + ",".join(pairs) + "}"


_format = format_line


def _now() -> str:
    return f"{time.monotonic():.6f}"


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = _clip(_text(value))
    if text and text.isprintable() and not any(c in text for c in ' "=\\'):
        return text
    return _quote(text)


def _json(value: object) -> str:
    if value is None or isinstance(value, (bool, int)):
        return _value(value) if value is None or isinstance(value, bool) else str(int(value))
    return _quote(_clip(_text(value)))


def _text(value: object) -> str:
    try:
        if isinstance(value, str):
            return value
        if isinstance(value, bytes):
            return value.decode("utf-8", "backslashreplace")
        if isinstance(value, OSError) and value.errno is not None:
            return _os_error(value)
        if isinstance(value, BaseException):
            return str(value) or type(value).__name__
        return str(value)
    except Exception:
        return f"<unprintable {type(value).__name__}>"


def _os_error(error: OSError) -> str:
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    text = f"{name} {error.strerror}"
    return text if error.filename is None else f"{text}: {_text(error.filename)}"


def _clip(text: str) -> str:
    extra = len(text) - VALUE_LIMIT
    return text if extra <= 0 else f"{text[:VALUE_LIMIT]}…(+{extra})"


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _quote(text: str) -> str:
    """Return `text` as a JSON string."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _traceback() -> str:
    import traceback  # imported with the first failure (start-up time)

    try:
        return "".join(traceback.format_exception(sys.exception())).rstrip()
    except Exception:
        return "<unprintable traceback>"
