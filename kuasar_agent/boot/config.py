"""The agent's settings from the kernel command line.

The keys `sharefs_type`, `log_level`, `debug`, `enable_tracing` and `debug_shell` are those that
Kuasar's hosts write; the others are this agent's own.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from kuasar_agent.log import FORMATS, LEVELS


class TaskConfig(NamedTuple):
    """One field for every `task.<field>` of the command line."""

    sharefs_type: Literal["9p", "virtiofs"] = "9p"
    """File system of the directory shared by the host."""
    log_level: str = "info"
    """A key of `kuasar_agent.log.LEVELS`."""
    log_format: Literal["logfmt", "json"] = "logfmt"
    debug: bool = False
    """Serve the debug console."""
    enable_tracing: bool = False
    """Trace from the start; SIGUSR1 turns it off and on."""
    trace_endpoint: str = "vsock://2:4318"
    """Who takes the traces, in OTLP over HTTP: `http://HOST:PORT` or `vsock://CID:PORT`."""
    debug_shell: str = "/bin/bash"
    """Absolute path of the console's shell."""
    cgroup: Literal["auto", "v1", "v2"] = "auto"
    runtime: Literal["", "crun", "runc"] = ""
    """The OCI runtime; empty lets the agent choose."""
    events: Literal["oom", "all"] = "oom"
    """Which events GetEvents hands out."""
    drain_grace: float = 2.0
    """Seconds for which a deletion waits for output that nobody takes, or that may yet come."""
    vsock_peers: Literal["host", "any"] = "host"
    """Who may connect: the host (CID 2) only, or any CID."""


class ParsedConfig(NamedTuple):
    """The settings, and a sentence for each parameter that was not understood."""

    config: TaskConfig
    warnings: list[str]


def parse_cmdline(text: str) -> ParsedConfig:
    """Read the `task.` parameters; the last good value of a key wins, unknown keys are ignored."""
    values: dict[str, Any] = {}
    warnings = []
    for key, value in split_parameters(text):
        name = key.removeprefix("task.")
        if name == key or name not in _PARSERS:
            continue
        try:
            values[name] = _PARSERS[name](value)
        except ValueError as error:
            given = key if value is None else f"{key}={value}"
            warnings.append(f"kernel parameter {given!r} ignored: {error}")
    return ParsedConfig(TaskConfig()._replace(**values), warnings)


def split_parameters(text: str) -> Iterator[tuple[str, str | None]]:
    """Key and value of each parameter; the value of a bare word is None.

    Double quotes as the kernel's next_arg() (lib/cmdline.c): inside them a space does not end
    the parameter; those around the whole parameter or around its value are removed.
    """
    word, quoted = "", False
    for char in text + " ":
        if char == '"':
            quoted = not quoted
        if char.isspace() and not quoted:
            if word:
                yield _split_parameter(word)
            word = ""
        else:
            word += char
    if word:  # an unbalanced quote runs to the end
        yield _split_parameter(word.rstrip())


def _split_parameter(word: str) -> tuple[str, str | None]:
    if word.startswith('"'):
        word = word[1:].removesuffix('"')
    key, separator, value = word.partition("=")
    if not separator:
        return key, None
    if value.startswith('"'):
        value = value[1:].removesuffix('"')
    return key, value


_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _boolean(value: str | None) -> bool:
    if value is None:
        return True
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise ValueError("not a boolean") from None


def _one_of(*choices: str) -> Callable[[str | None], str]:
    def parse(value: str | None) -> str:
        if value is None or value.lower() not in choices:
            raise ValueError("expected one of " + ", ".join(repr(choice) for choice in choices))
        return value.lower()

    return parse


def _seconds(value: str | None) -> float:
    seconds = float(value or "none")
    if not 0 <= seconds <= 3600:
        raise ValueError("expected seconds, at most 3600")
    return seconds


def _absolute_path(value: str | None) -> str:
    if value is None or not value.startswith("/"):
        raise ValueError("expected an absolute path")
    return value


def _endpoint(value: str | None) -> str:
    scheme, separator, place = (value or "").partition("://")
    if not separator or scheme not in ("http", "vsock") or not place:
        raise ValueError("expected http://HOST:PORT or vsock://CID:PORT")
    return f"{scheme}://{place}"


_PARSERS: dict[str, Callable[[str | None], object]] = {
    "sharefs_type": _one_of("9p", "virtiofs"),
    "log_level": _one_of(*LEVELS),
    "log_format": _one_of(*FORMATS),
    "debug": _boolean,
    "drain_grace": _seconds,
    "enable_tracing": _boolean,
    "trace_endpoint": _endpoint,
    "debug_shell": _absolute_path,
    "cgroup": _one_of("auto", "v1", "v2"),
    "runtime": _one_of("", "crun", "runc"),
    "events": _one_of("oom", "all"),
    "vsock_peers": _one_of("host", "any"),
}
